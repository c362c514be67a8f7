/*
 * Swap on nbd0, whose daemon sends each request on over TCP, which takes memory.
 * Written from Linux 6.12, by hand, as a judge of ioflusher.model: nothing here comes from its code.
 * spin -DIO_FLUSHER=0 (without the state) or 1 (with it); -DREADER=0: no page cache, everything anonymous.
 *
 * Numbers are units of memory: free, clean page cache, anonymous, and anonymous being written to swap.
 *
 * __alloc_pages_slowpath(), mm/page_alloc.c: below the min watermark (nothing free, here) a task reclaims by
 * itself, until it gets something. shrink_folio_list(), mm/vmscan.c, of a clean file folio: freed. Of an
 * anonymous one that is not in the swap cache: kept without __GFP_IO, else add_to_swap(), pageout(),
 * swap_writepage(). get_scan_count() does not look at __GFP_IO; with swappiness 100 either list is scanned,
 * so the choice is free here.
 *
 * swap_writepage_bdev_async(), mm/page_io.c: bio_alloc(GFP_NOIO). Under PF_MEMALLOC, which reclaim has, and
 * with __GFP_NOMEMALLOC, which mempool_alloc() adds, nothing below the watermark is had but the pool's own
 * elements: BIO_POOL_SIZE, 2 for the whole machine, until one comes back. mempool_alloc() waits for it.
 * Then blk_mq_get_tag(), then in nbd_queue_rq() the socket's tx_lock, held while the socket has no room
 * (sock_alloc_send_pskb(), sk_stream_wait_memory()).
 *
 * current_gfp_context(): with PF_MEMALLOC_NOIO an allocation of the daemon has no __GFP_IO. It can still drop
 * clean page cache. Where there is none it tries again and again; here it waits until there is.
 *
 * A written folio is clean swap cache, which the next scan frees, with __GFP_IO or without: it counts as clean.
 *
 * A round of reclaim frees SWAP_CLUSTER_MAX pages at least and the task takes one, so nobody takes it away in
 * between: who drops a unit of page cache has it. file_is_tiny in get_scan_count(): where there is hardly any
 * page cache left, who may scan anonymous memory leaves it alone; only at priority 0, which one gets to who
 * cannot free anything else, is everything scanned.
 */

#ifndef IO_FLUSHER
#define IO_FLUSHER 0
#endif
#ifndef READER
#define READER 1
#endif
#define TOUCHED 8   /* anonymous units that the program touches: more than there is memory */
#define MEMORY  6
#define CACHE   (READER * 3)   /* units of page cache that the reader fills */
#define TINY    1   /* units of page cache that are hardly any */
#define BIOS    2   /* BIO_POOL_SIZE */
#define TAGS    3
#define ROOM    2

byte free = MEMORY - CACHE;
byte clean = CACHE;
byte anon, swapping;
byte to_touch = TOUCHED;
byte bios = BIOS, tags = TAGS, in_socket;
bit tx_lock;

/* pageout() > swap_writepage(), of one folio that has just become swap cache */
inline swap_writepage()
{
	d_step { bios > 0; bios-- };                            /* mempool_alloc() */
	d_step { tags > 0; tags-- };                            /* blk_mq_get_tag() */
	d_step { tx_lock == 0; tx_lock = 1 };                   /* mutex_lock(&nsock->tx_lock) */
	d_step { in_socket < ROOM; in_socket++; tx_lock = 0 }   /* sock_xmit() */
}

/* do_anonymous_page() for each unit */
active proctype toucher()
{
	do
	:: to_touch == 0 -> break
	:: d_step { to_touch > 0 && free > 0; free--; anon++; to_touch-- }
	:: d_step { to_touch > 0 && free == 0 && clean > TINY; clean--; anon++; to_touch-- }
	:: d_step { to_touch > 0 && free == 0 && anon > 0; anon--; swapping++ } -> swap_writepage()
	od
}

/* reads a disk over and over: page cache; what it has too much of it takes from its own */
active proctype reader()
{
	do
	:: d_step { clean < CACHE && free > 0; free--; clean++ }
	od
}

/* receives, sends on over TCP (a unit of memory until it is acknowledged), answers */
active proctype nbd_daemon()
{
	do
	:: d_step { in_socket > 0; in_socket-- };
		/* tcp_sendmsg() > skb_page_frag_refill() */
		do
		:: d_step { free > 0; free-- } -> break
		:: d_step { free == 0 && clean > 0; clean-- } -> break
		:: d_step { !IO_FLUSHER && free == 0 && anon > 0; anon--; swapping++ } -> swap_writepage()
		od;
		free++;
		/* end_swap_bio_write(), bio_put(), blk_mq_put_tag() */
		d_step { swapping--; clean++; bios++; tags++ }
	od
}

/* a freeze: nobody can take a step, and the program has not touched all of its memory */
active proctype nobody()
{
	timeout -> assert(to_touch == 0)
}

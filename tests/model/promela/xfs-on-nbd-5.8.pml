/*
 * XFS on nbd0 before Linux 5.9: direct reclaim of the daemon waits until an inode is written to nbd0. This is
 * the trace that brought PR_SET_IO_FLUSHER (8d19f1c8e193).
 * Written from Linux 5.8, by hand, as a judge of ioflusher.model: nothing here comes from its code.
 * spin -DIO_FLUSHER=0 (without the state) or 1 (with it); -DSINCE_5_9=1: reclaim does not wait.
 *
 * Numbers are units of memory: free, clean page cache, inodes dirty and clean.
 *
 * shrink_slab() > super_cache_scan(), fs/super.c: `if (!(sc->gfp_mask & __GFP_FS)) return SHRINK_STOP`. With
 * PF_MEMALLOC_NOIO current_gfp_context() takes __GFP_FS too, so the daemon's reclaim stays away from inodes
 * and drops page cache only.
 *
 * xfs_reclaim_inodes_ag(), fs/xfs/xfs_icache.c: takes the allocation group's pag_ici_reclaim_lock, and
 * xfs_reclaim_inode() of a dirty inode locks it, forces the log where it is pinned (xfs_iunpin_wait()), and
 * waits for xfs_bwrite(): one request to nbd0 here. Other reclaimers wait for the lock. kswapd does the same.
 * Since 5.9 (993f951f501c, 617825fe3489, 4d0bab3a4468) dirty inodes are skipped and left to xfsaild, which
 * writes them in the background, with memory of its own (mempools).
 *
 * __sock_xmit() of nbd has PF_MEMALLOC, so the driver's own sends always have memory.
 */

#ifndef IO_FLUSHER
#define IO_FLUSHER 0
#endif
#ifndef SINCE_5_9
#define SINCE_5_9 0
#endif
#define FILES   3   /* inodes that the writer makes */
#define READ    6   /* units of page cache that the reader reads: more than there is room for */
#define MEMORY  4   /* more than the inodes: page cache remains */
#define TAGS    3
#define ROOM    2

byte free = MEMORY;
byte clean, dirty_inodes, clean_inodes, writing;
byte to_make = FILES, to_read = READ;
byte tags = TAGS, in_socket;
bit reclaim_lock;           /* pag_ici_reclaim_lock */
byte waiters;               /* reclaimers in xfs_buf_iowait(), and how many of them may go on */
byte woken;
byte background;            /* requests of xfsaild */

/* the inodes are made and written */
#define done (to_make == 0 && dirty_inodes == 0 && writing == 0 && background == 0)

/* nbd_queue_rq() */
inline submit()
{
	d_step { tags > 0; tags-- };
	d_step { in_socket < ROOM; in_socket++ }
}

/* try_to_free_pages(): one unit; fs is __GFP_FS of the task */
inline reclaim(fs)
{
	if
	:: d_step { free == 0 && clean > 0; clean--; free++ }
	:: d_step { free == 0 && fs && clean_inodes > 0 && reclaim_lock == 0; clean_inodes--; free++ }
	:: d_step { free == 0 && fs && !SINCE_5_9 && dirty_inodes > 0 && reclaim_lock == 0;
		reclaim_lock = 1; dirty_inodes--; writing++ };
		submit();
		waiters++;
		/* xfs_buf_iowait() */
		d_step { woken > 0; woken--; waiters--; free++; reclaim_lock = 0 }
	:: free > 0
	fi
}

/* creat(): an inode each, dirty from the beginning */
active proctype writer()
{
	do
	:: to_make == 0 -> break
	:: d_step { to_make > 0 && free > 0; free--; dirty_inodes++; to_make-- }
	:: to_make > 0 && free == 0 -> reclaim(1)
	od
}

/* reads so much and no more, so that where the rest is frozen nobody goes round for ever */
active proctype reader()
{
	do
	:: to_read == 0 -> break
	:: d_step { to_read > 0 && free > 0; free--; clean++; to_read-- }
	od
}

/* GFP_KERNEL, and always somebody who needs memory */
active proctype kswapd()
{
	do
	:: free == 0 -> reclaim(1)
	od
}

/* writes dirty inodes back in the background */
active proctype xfsaild()
{
	do
	:: d_step { dirty_inodes > 0; dirty_inodes--; background++ };
		submit()
	od
}

/* receives, sends on over TCP (a unit of memory until it is acknowledged), answers */
active proctype nbd_daemon()
{
	do
	:: d_step { in_socket > 0; in_socket-- };
		do
		:: d_step { free > 0; free-- } -> break        /* tcp_sendmsg() */
		:: free == 0 -> reclaim(!IO_FLUSHER)
		od;
		free++;
		/* the request that was answered is one of reclaim's or one of xfsaild's */
		if
		:: d_step { writing > 0; writing--; woken++; tags++ }
		:: d_step { background > 0; background--; clean_inodes++; tags++ }
		fi
	od
}

/* a freeze: nobody can take a step, and not all inodes are made and written */
active proctype nobody()
{
	timeout -> assert(done)
}

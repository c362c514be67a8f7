/*
 * Dirty throttling: ext4 on nbd0, the daemon stores with buffered writes into a file on another disk, vda.
 * Written from Linux 6.12, by hand, as a judge of ioflusher.model: nothing here comes from its code.
 * spin -DIO_FLUSHER=0 (without the state) or 1 (with it).
 *
 * Numbers are units of dirty memory, a request is a unit.
 *
 * balance_dirty_pages(), mm/page-writeback.c, is called after each write. dirty = NR_FILE_DIRTY plus
 * NR_WRITEBACK of the whole machine. Up to (thresh + bg_thresh) / 2 it returns (freerun). From there to the
 * limit a task sleeps once and returns (`if (task_ratelimit) break`). At the limit pos_ratio is 0, so
 * task_ratelimit is 0 and the loop goes round, until dirty falls below the limit or the pages of the task's
 * own device are nearly all written (`sdtc->wb_dirty <= wb_stat_error()`). Sleeping once is nothing but time,
 * so below the limit a task just goes on here, and at the limit it waits for the condition.
 *
 * PF_LOCAL_THROTTLE (domain_dirty_freerun() for the device alone, balance_wb_limits()): freerun as well where
 * wb_dirty is below the device's share of the freerun ceiling. The share follows what the device has written
 * of late; each of two has half here.
 *
 * wb_over_bg_thresh(), the flusher of a device has work: NR_FILE_DIRTY of the machine over bg_thresh, or the
 * device's own over its share of it. Pages under writeback do not count. That is why the daemon's few dirty
 * pages stay where they are while the machine is at its limit, by pages under writeback to nbd0.
 *
 * nbd_queue_rq() has a tag for each request (queue_depth) and sends through a socket that holds a few; the
 * daemon takes it from there. The completion ends the writeback.
 *
 * The reader of memory, kswapd and reclaim are left out: about 500 MB are free when this freezes (LAB.md).
 */

#ifndef IO_FLUSHER
#define IO_FLUSHER 0
#endif
#define WORK    12  /* units that the writer writes: more than the limit */
#define THRESH  8   /* vm.dirty_bytes */
#define BG      4   /* vm.dirty_background_bytes */
#define TAGS    3   /* requests that nbd0 takes */
#define ROOM    2   /* requests that its socket holds */

#define FREERUN ((THRESH + BG) / 2)
#define SHARE   (FREERUN / 2)
#define dirty   (nbd0_dirty + nbd0_writeback + vda_dirty + vda_writeback)

byte to_write = WORK;
byte nbd0_dirty, nbd0_writeback;   /* NR_FILE_DIRTY and NR_WRITEBACK of what lies on nbd0 */
byte vda_dirty, vda_writeback;     /* the same of vda */
byte tags = TAGS;
byte in_socket;

#define done (to_write == 0 && nbd0_dirty == 0 && nbd0_writeback == 0)

active proctype writer()
{
	do
	:: to_write > 0 ->
		/* generic_perform_write() */
		d_step { to_write--; nbd0_dirty++ };
		/* balance_dirty_pages() of nbd0's backing device; the writer has no flags */
		dirty < THRESH || nbd0_dirty + nbd0_writeback == 0
	:: to_write == 0 -> break
	od;
	/* fsync(): everything has to be on nbd0 */
	nbd0_dirty == 0 && nbd0_writeback == 0
}

/* wb_workfn() of nbd0; when the writer syncs, it writes whatever is dirty */
active proctype flush_nbd0()
{
	do
	:: d_step {
		nbd0_dirty > 0 && (nbd0_dirty + vda_dirty > BG || nbd0_dirty > BG / 2 || to_write == 0);
		/* folio_start_writeback() */
		nbd0_dirty--; nbd0_writeback++ };
		/* blk_mq_get_tag() */
		d_step { tags > 0; tags-- };
		/* sock_xmit(): sk_stream_wait_memory() or sock_alloc_send_pskb() */
		d_step { in_socket < ROOM; in_socket++ }
	od
}

/* wb_workfn() of vda */
active proctype flush_vda()
{
	do
	:: d_step {
		vda_dirty > 0 && (nbd0_dirty + vda_dirty > BG || vda_dirty > BG / 2);
		vda_dirty--; vda_writeback++ }
	od
}

/* the disk completes what it is given */
active proctype vda()
{
	do
	:: d_step { vda_writeback > 0; vda_writeback-- }
	od
}

active proctype nbd_daemon()
{
	do
	:: d_step { in_socket > 0; in_socket-- };
		/* pwrite() into the file on vda: generic_perform_write() */
		vda_dirty++;
		/* balance_dirty_pages() of vda's backing device */
		(dirty < THRESH || vda_dirty + vda_writeback == 0 ||
			(IO_FLUSHER && vda_dirty + vda_writeback < SHARE));
		/* the answer: nbd_read_reply() > blk_mq_complete_request() > folio_end_writeback() */
		d_step { nbd0_writeback--; tags++ }
	od
}

/* a freeze: nobody can take a step, and not everything is written */
active proctype nobody()
{
	timeout -> assert(done)
}

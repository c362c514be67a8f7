#!/bin/sh
# What four tracers say of a daemon that serves /dev/nbd0, one after another, as a tar archive in base64.
# record.sh nbdkit|nbd-server COUNT: COUNT writes of 64 KiB, reads of 64 KiB, and writes of 4 KiB for each.
# In a guest: ioflusher lab exec --load "nbd nbds_max=1" --memory 1G --disk 256M -- sh tests/lab/traces/record.sh nbdkit 6
set -u
exec 3>&1 >&2
count=$2
mkdir -p /store
mkfs.ext4 -q /dev/vdb && mount /dev/vdb /store
dd if=/dev/zero of=/store/image bs=1M count=64 2>/dev/null
sync
case $1 in
nbdkit)
	uri='nbd+unix:///?socket=/run/s'
	nbdkit -f -U /run/s file /store/image &
	;;
nbd-server)
	uri='nbd+unix:///disk?socket=/run/s'
	printf '[generic]\n unixsock = /run/s\n[disk]\n exportname = /store/image\n' >/run/c
	nbd-server -d -C /run/c &
	;;
esac
daemon=$!
sleep 3
ioflusher nbd attach --netlink /dev/nbd0 "$uri"
sleep 1

work() { # at a place of its own for each tracer
	echo 3 >/proc/sys/vm/drop_caches
	dd if=/dev/zero of=/dev/nbd0 bs=64k count="$count" seek="$1" oflag=direct 2>/dev/null
	sleep 2
	dd if=/dev/nbd0 of=/dev/null bs=64k count="$count" skip="$1" iflag=direct 2>/dev/null
	sleep 2
	dd if=/dev/zero of=/dev/nbd0 bs=4k count="$count" seek=$(($1 * 16 + 1600)) oflag=direct 2>/dev/null
	sleep 2
}
events="raw_syscalls:sys_enter raw_syscalls:sys_exit kmem:kmalloc kmem:kmem_cache_alloc kmem:mm_page_alloc
exceptions:page_fault_user block:block_rq_issue block:block_rq_complete"

work 0
cd /tmp
# shellcheck disable=SC2046,SC2086 # one word for each option and event
trace-cmd record $(printf ' -e %s' $events) -b 20000 -o trace.dat sleep 100 &
tracer=$!
sleep 8
work 100
kill -INT $tracer
wait $tracer
trace-cmd report trace.dat >trace-cmd.txt
# shellcheck disable=SC2046,SC2086
perf record -q -a -m 1024 $(printf -- ' -e %s --exclude-perf' $events) -o perf.data sleep 100 &
tracer=$!
sleep 8
work 200
kill -INT $tracer
wait $tracer
perf script --header -i perf.data >perf.txt
children=$(pgrep -d, -P $daemon)
strace -f -tt -T -o strace.txt -p "$daemon${children:+,$children}" &
tracer=$!
sleep 3
work 300
kill -INT $tracer
wait $tracer
tracing=/sys/kernel/tracing
mount -t tracefs tracefs $tracing 2>/dev/null
echo 30000 >$tracing/buffer_size_kb
for event in $events; do
	echo 1 >"$tracing/events/$(echo "$event" | tr : /)/enable"
done
work 400
echo 0 >$tracing/tracing_on
cat $tracing/trace >ftrace.txt
tar cz trace-cmd.txt perf.txt strace.txt ftrace.txt | base64 >&3

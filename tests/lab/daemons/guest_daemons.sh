# Runs in a guest: both daemons under an ext4 file system. $PYTHON runs them.
set -u
content() { # content DEVICE: write, forget, read back
    mkfs.ext4 -q "$1" && mount "$1" /mnt || return 1
    head -c 4000000 /dev/urandom >/run/wanted
    cp /run/wanted /mnt/file && sync
    echo 3 >/proc/sys/vm/drop_caches
    cmp /run/wanted /mnt/file && umount /mnt
}
flagged() { # flagged PID: how many of its threads carry both bits, and how many it has
    total=0 both=0
    for stat in /proc/"$1"/task/*/stat; do
        total=$((total + 1))
        flags=$(sed 's/.*) //' "$stat" | cut -d' ' -f7)
        [ $((flags & 0x180000)) = $((0x180000)) ] && both=$((both + 1))
    done
    echo $both $total
}

cd /run
truncate -s 64M image
$PYTHON -S -m ioflusher.lab.daemons.ublk --store image --lock-memory --queues 2 &
daemon=$!
while ! [ -e /sys/block/ublkb0/mq ]; do sleep 0.2; done
while [ "$(cat /sys/block/ublkb0/size)" = 0 ]; do sleep 0.2; done
content /dev/ublkb0 && echo "ublk: content as written"
echo "ublk: $(ls /sys/block/ublkb0/mq | wc -l) hardware queues"
set -- $(flagged $daemon)
[ "$1" = "$2" ] && echo "ublk: all threads carry the state"
kill $daemon
wait $daemon
status=$?
[ -e /sys/block/ublkb0 ] || echo "ublk: status $status, device gone"

truncate -s 64M image
mkdir mount
$PYTHON -S -m ioflusher.lab.daemons.fuse_file --no-io-flusher --store image /run/mount &
daemon=$!
while ! [ -e mount/image ]; do sleep 0.2; done
losetup /dev/loop0 mount/image
content /dev/loop0 && echo "fuse: content as written"
losetup -d /dev/loop0
set -- $(flagged $daemon)
echo "fuse: $1 threads carry the state"
kill $daemon
wait $daemon
status=$?
grep -q /run/mount /proc/mounts || echo "fuse: status $status, mount gone"

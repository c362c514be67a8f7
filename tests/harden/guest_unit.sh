#!/bin/sh
# Runs inside a guest: a real systemd, first process of a PID namespace of its own, starts two services whose
# drop-ins `ioflusher unit` installed. Prints for each service's process: name, user, task flags, effective
# and ambient capabilities, OOM score adjustment, scheduling policy and priority.
# usage: guest_unit.sh IOFLUSHER
set -eu
units=/etc/systemd/system
mkdir -p $units /sys/fs/cgroup
mountpoint -q /sys/fs/cgroup || mount -t cgroup2 none /sys/fs/cgroup

service() { # service NAME LINES: a service that needs nothing of a booted system
    printf '[Unit]\nDefaultDependencies=no\n[Service]\n%b\n' "$2" >$units/"$1".service
}
service lender 'User=nobody\nExecStart=/bin/sleep 1000'
service strict 'CapabilityBoundingSet=CAP_NET_ADMIN\nNoNewPrivileges=yes\nMemoryDenyWriteExecute=yes\n'\
'SystemCallFilter=@system-service\nSystemCallErrorNumber=EPERM\nExecStart=-/bin/sleep 2000'
printf '[Unit]\nDefaultDependencies=no\nWants=lender.service strict.service\n' >$units/only.target
"$1" unit --install lender.service --oom-score-adj -900 --policy rr --priority 2 >&2
"$1" unit --install strict.service --nice -5 --memlock unlimited >&2

container=lxc unshare --fork --pid --mount-proc --cgroup \
    /lib/systemd/systemd --system --unit=only.target --log-target=console >&2 &
for _ in $(seq 120); do
    [ "$(pgrep -c -x sleep || true)" -ge 2 ] && break
    sleep 0.5
done
for pid in $(pgrep -x sleep); do
    command=$(tr '\0' ' ' </proc/"$pid"/cmdline)
    case $command in
    "/bin/sleep 1000 ") name=lender ;;
    "/bin/sleep 2000 ") name=strict ;;
    *) continue ;;
    esac
    status() { sed -n "s/^$1:\t*\([^\t]*\).*/\1/p" /proc/"$pid"/status; }
    stat=$(sed 's/.*) //' /proc/"$pid"/stat)
    flags=$(echo "$stat" | cut -d' ' -f7) nice=$(echo "$stat" | cut -d' ' -f17)
    policy=$(echo "$stat" | cut -d' ' -f39) priority=$(echo "$stat" | cut -d' ' -f38)
    locked=$(sed -n 's/^Max locked memory *\([^ ]*\).*/\1/p' /proc/"$pid"/limits)
    echo "$name $(status Uid) $flags $(status CapEff) $(status CapAmb) $(cat /proc/"$pid"/oom_score_adj)" \
        "$policy $priority $nice $locked"
done

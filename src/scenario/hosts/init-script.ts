/**
 * What pid 1 of a host runs, under `sh`. Arguments: state directory, host name, then the copy-on-write directories.
 * It lays the host's own directories over the machine's, says so on descriptor 3, and then reaps the orphans it inherits
 * (shims, daemons): a shell that waits for a background child reaps every other child on the way.
 */
export const INIT_SCRIPT = `
set -e
h=$1; hostname "$2"; shift 2
mount --make-rprivate /
for d; do
  c=$h/cow$d; mkdir -p "$c/up" "$c/work"
  mount -t overlay overlay -o "lowerdir=$d,upperdir=$c/up,workdir=$c/work" "$d"
done
mkdir -p /var/lib/docker /var/lib/containerd /var/lib/host-home
mount --bind "$h/docker" /var/lib/docker
mount --bind "$h/containerd" /var/lib/containerd
mount --bind "$h/home" /var/lib/host-home
mkdir -p "$h/cg"
mount --rbind /sys/fs/cgroup "$h/cg"
mount -t sysfs sysfs /sys
mount --rbind "$h/cg" /sys/fs/cgroup
umount -l "$h/cg"
mount --bind "$h/run" /run
echo 1 >/proc/sys/net/ipv4/ip_forward
echo ready >&3
exec 3>&-
set +e
while :; do sleep 1000000 & wait $!; done
`;

export const HOME_INSIDE = '/var/lib/host-home';

/** Marks pid 1 in its command line, so that a later run finds it by prefix and host and never kills a stranger. */
export function initTag(prefix: string, host: number): string {
  return `taskorg-host:${prefix}:${host}`;
}

/**
 * Enters a host: into its daemons' cgroup first (from outside, where the files are), then all its namespaces, keeping the
 * working directory when it exists there. \`$0\` = pid 1; arguments: cgroup files, \`--\`, directory, command.
 * Descriptor 3, when open, hears a line just before the command takes over.
 */
export const ENTER_SCRIPT = `
while [ "$1" != -- ]; do echo $$ >"$1" 2>/dev/null || :; shift; done
shift
exec nsenter -t "$0" -m -u -i -n -p -- sh -c '
  cd "$0" 2>/dev/null || cd /
  if [ -n "$TASKORG_SPAWNED" ]; then unset TASKORG_SPAWNED; echo started >&3; exec 3>&-; fi
  exec "$@"' "$@"
`;

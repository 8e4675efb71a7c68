// Planted defects. The simulator is trusted only as far as it finds these: each breaks one rule of safety, outside of the
// cores (in what disks, wires, boot and settings do to them), and has to be caught within a few seeds.

export const DEFECTS = {
  'vote-before-fsync': 'replies leave before the vote they carry is durable',
  'votes-for-all': 'every vote that is asked for is granted',
  'applied-without-state': 'the applied index is written, the records are not',
  'forget-submissions': 'kept submissions are not read back at a restart',
  'commit-on-minority': 'appends that reach nobody are acknowledged',
  'apply-before-commit': 'followers are told that what they are sent is committed',
  'lease-from-receipt': "a lease counts from the answer's receipt, not the renewal's sending",
  'wrong-lease-arithmetic': 'L(1-r) and L(1+r) are swapped, with an r of a quarter',
  'renew-after-close': 'refused renewals are acknowledged',
  'start-without-lease': 'a copy starts as soon as it is assigned',
  'boot-asleep': 'boot enforces no deadline',
  'eternal-adoption': 'a restarted agent takes every lease for valid for an hour',
  'false-proof-of-death': 'a copy is said to be stopped that still runs',
  // votes and logs
  'acks-beyond-log': 'followers acknowledge an entry more than they hold',
  'never-refuses': 'a follower whose log does not join on says that it holds all',
  'rewrites-entries': 'a leader sends old entries under its own term',
  // disks
  'fsync-lies': 'what was fsynced is lost with the power',
  'forgets-vote': 'a vote is not read back at a restart',
  'forgets-term': 'the term of the log is all that is known of terms after a restart',
  'wipe-and-vote': 'a peer that comes back with an empty disk votes on',
  'restored-from-backup': 'a peer comes back with the disk of an hour ago, and votes on',
  'skips-truncate': 'a conflicting suffix stays on the disk',
  'loses-tail': 'the last entry is not read back at a restart',
  'state-without-applied': 'the records are written, the applied index is not',
  'half-a-batch': 'a power cut keeps the first half of the records of a batch, and its applied index',
  // snapshots
  'stale-snapshot': 'a snapshot holds the records of an earlier index than it names',
  'partial-snapshot': 'a snapshot lacks a task',
  // leases, boot and runtimes
  'forged-proof-of-death': 'every renewal says that the copies it names are dead',
  'renew-from-memory': 'a master acknowledges whatever it is asked, without a look at the records',
  'late-kill': 'boot kills half a second after the deadline',
  'leases-outlive-power': 'boot takes deadlines of before a power cut for valid',
  'wild-clocks': "machines' clocks differ by more than the bound",
  'starts-twice': 'a copy that runs is started once more',
} as const;
export type Defect = keyof typeof DEFECTS;

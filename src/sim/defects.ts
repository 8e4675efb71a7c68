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
} as const;
export type Defect = keyof typeof DEFECTS;

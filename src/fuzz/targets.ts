import type { FuzzTarget } from './target.ts';
import { apiTargets } from './targets/api.ts';
import { bootTargets } from './targets/boot.ts';
import { diskTargets } from './targets/disk.ts';
import { documentTargets } from './targets/documents.ts';
import { messageTargets } from './targets/messages.ts';
import { nameTargets } from './targets/names.ts';
import { serviceTargets } from './targets/services.ts';
import { streamTargets } from './targets/streams.ts';

/** Every decoder of a peer, its supervisor and its client. */
export const allTargets = (): FuzzTarget[] => [
  ...messageTargets(),
  ...streamTargets(),
  ...diskTargets(),
  ...bootTargets(),
  ...serviceTargets(),
  ...apiTargets(),
  ...nameTargets(),
  ...documentTargets(),
];

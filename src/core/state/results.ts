import type { ApplyResult } from '../../model/commands.ts';

export const OK: ApplyResult = { ok: true };

export const refused = (code: Extract<ApplyResult, { ok: false }>['code'], reason: string): ApplyResult => ({
  ok: false,
  code,
  reason,
});

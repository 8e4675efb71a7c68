import { describe, expect, it } from 'vitest';
import { loadSettings, NO_ENFORCEMENT } from '../../src/agent/settings.ts';
import { granterWaitMs, holderLeaseMs } from '../../src/core/lease/keys.ts';
import { DEFAULT_LEASE_CONFIG } from '../../src/core/lease/types.ts';
import type { DurationMs } from '../../src/model/ids.ts';

// What the campaign's proof of its witness rests on, and that nothing less than the exact words turns it on.

describe('leases that are not enforced', () => {
  it('are, unless the environment says 1', () => {
    const enforces = (env: Readonly<Record<string, string>>): boolean => loadSettings([], env).enforcesLeases;
    expect(enforces({})).toBe(true);
    expect(enforces({ [NO_ENFORCEMENT]: '' })).toBe(true);
    expect(enforces({ [NO_ENFORCEMENT]: '0' })).toBe(true);
    expect(enforces({ [NO_ENFORCEMENT]: '1' })).toBe(false);
  });

  it('end later for their holder, and no later for the master', () => {
    const unsafe = { ...DEFAULT_LEASE_CONFIG, unsafeHolderMs: 3_600_000 as DurationMs };
    expect(holderLeaseMs(DEFAULT_LEASE_CONFIG)).toBe(3_960);
    expect(holderLeaseMs(unsafe)).toBe(3_600_000);
    expect(granterWaitMs(unsafe)).toBe(granterWaitMs(DEFAULT_LEASE_CONFIG));
  });
});

import { describe, expect, it } from 'vitest';
import { KILL_KINDS, PARTITION_KINDS, scheduleOf } from '../../src/campaign/schedule.ts';

const size = { hosts: 5, kills: 300, partitions: 60, freezes: 20 };

describe('the schedule of a campaign', () => {
  it('follows from its seed alone', () => {
    expect(scheduleOf('a', size)).toEqual(scheduleOf('a', size));
    expect(scheduleOf('a', size)).not.toEqual(scheduleOf('b', size));
  });

  it('has as many faults as were asked for, every kind equally often', () => {
    const rounds = scheduleOf('a', size);
    const kills = rounds.flatMap((round) => (round.type === 'kills' ? round.kills : []));
    for (const kind of KILL_KINDS)
      expect(kills.filter((kill) => kill.kind === kind)).toHaveLength(size.kills / KILL_KINDS.length);
    const partitions = rounds.flatMap((round) => (round.type === 'partition' ? [round.kind] : []));
    for (const kind of PARTITION_KINDS)
      expect(partitions.filter((one) => one === kind)).toHaveLength(size.partitions / PARTITION_KINDS.length);
    expect(rounds.filter((round) => round.type === 'freeze')).toHaveLength(size.freezes);
  });

  it('never strikes so many hosts at once that no majority is left, nor one host twice, nor two leaders', () => {
    for (const round of scheduleOf('a', size)) {
      if (round.type !== 'kills') continue;
      expect(round.kills.length).toBeLessThanOrEqual(2);
      expect(new Set(round.kills.map((kill) => kill.host)).size).toBe(round.kills.length);
      expect(round.kills.filter((kill) => kill.kind === 'leader').length).toBeLessThanOrEqual(1);
    }
  });
});

import type { Stream } from '@libp2p/interface';
import { describe, expect, test } from 'vitest';
import { lazyWindow } from '../../../src/adapters/libp2p/lazy-window.ts';

// The yamux specification, 'Flow Control': a window update for every frame costs as many packets as the data.

const stream = (state: number, recvWindowCapacity: number) => {
  const updates: number[] = [];
  const fake = {
    state,
    recvWindow: 1000,
    recvWindowCapacity,
    sendWindowUpdate(): void {
      updates.push(this.recvWindow - this.recvWindowCapacity);
      this.recvWindowCapacity = this.recvWindow;
    },
  };
  lazyWindow(fake as unknown as Stream);
  return { fake, updates };
};

describe('room to send', () => {
  test('is granted when half of it is used, and then all of it', () => {
    const { fake, updates } = stream(3, 1000);
    for (let used = 0; used < 2000; used += 100) {
      fake.recvWindowCapacity -= 100;
      fake.sendWindowUpdate();
      expect(fake.recvWindowCapacity).toBeGreaterThan(0);
    }
    expect(updates).toEqual([500, 500, 500, 500]);
  });

  test('is told at once where the update also answers the opening of the stream', () => {
    const { fake, updates } = stream(2, 999);
    fake.sendWindowUpdate();
    expect(updates).toEqual([1]);
  });

  test('a stream that looks different is left as it is', () => {
    const other = { sendWindowUpdate: (): string => 'its own' };
    lazyWindow(other as unknown as Stream);
    expect(other.sendWindowUpdate()).toBe('its own');
  });
});

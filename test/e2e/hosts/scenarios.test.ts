import { describe, expect, it } from 'vitest';
import { whyNoHostLab } from '../../../src/scenario/hosts/requirements.ts';
import { scenarioMain } from '../../../src/scenario/main.ts';
import { UNHURRIED, withEnvironment } from '../../fixtures/environment.ts';

// Chaos on real hosts: network namespaces with their own Docker Engines, made and removed by the test. The long campaign
// (all scenarios, many rounds) is `npm run scenario -- --hosts ...`; these show in CI that the way there works.

const wanted = process.env.TASKORG_TEST_DOCKER === '1';
const missing = whyNoHostLab(true);

describe('scenarios on real hosts', () => {
  if (!wanted) {
    it('did not run: TASKORG_TEST_DOCKER=1 turns them on', () => {
      expect(wanted).toBe(false);
    });
    return;
  }
  it('can be made here', () => {
    expect(missing).toBeUndefined();
  });
  for (const name of ['kill-one', 'kill-master', 'engine-crash', 'agent-crash', 'cut-and-heal']) {
    // How fast is `npm run bench`'s to say, beside a reference: here it is shown, since the hosts share what CPU there is.
    it(`${name} holds`, { timeout: 240_000 }, async () => {
      const said: string[] = [];
      const code = await withEnvironment(name === 'agent-crash' ? UNHURRIED : {}, () =>
        scenarioMain(['run', name, '--stage', 'hosts', '--times', 'shown'], {
          out: (t) => said.push(t),
          err: (t) => said.push(t),
        }),
      );
      expect(code, said.join('\n')).toBe(0);
    });
  }
});

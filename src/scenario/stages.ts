import { hostStage } from './host-stage.ts';
import { processStage } from './process-stage.ts';
import type { StageFactory } from './types.ts';

/**
 * Where scenarios can be played, by name. Whoever has a further one hands the runner this map with its own entry added:
 * the simulator, which lives with the tests, comes in as `simulated`.
 */
export const STAGES: ReadonlyMap<string, StageFactory> = new Map<string, StageFactory>([
  ['processes', processStage],
  ['hosts', hostStage],
]);

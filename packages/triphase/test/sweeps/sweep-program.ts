// An engine in a process of its own that works on a sweep, to be killed.
import { createEngine, defineSweep, Permanent } from '../../src/index.ts'
import { countSweep, type SweepProgramSettings } from './count-sweep.ts'

const settings = JSON.parse(process.env.SWEEP_PROGRAM ?? '{}') as SweepProgramSettings

const sweep = defineSweep(countSweep(settings, (message) => new Permanent(message)))
const engine = createEngine({
  url: settings.url,
  schema: settings.schema,
  heartbeat: '200ms',
  deadAfter: '2s',
  engine: { size: 3 },
  application: { size: 2 },
  queues: { default: settings.queueConcurrency ?? 3 },
  tasks: [sweep],
})
await engine.start()
if (settings.run) await engine.sweep(sweep).run()
process.stdout.write('ready\n')

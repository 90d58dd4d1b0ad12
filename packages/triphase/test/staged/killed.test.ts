import { useStage } from './stage.ts'

const stage = useStage()

stage.row('killed-before-prepare', async () => {
  const begins = stage.at('worker', 'begin', 'hold-before')
  const worker = await stage.worker('worker')
  const id = await stage.enqueue()
  await begins.hit
  worker.kill()
  await worker.exited
  await stage.cut('worker')
  await stage.engine('b')
  return id
})

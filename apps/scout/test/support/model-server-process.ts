import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { controlsOf, type ModelServer, startModelServer } from './model-server.ts'

const script = fileURLToPath(import.meta.url)

/** Starts the server in a process of its own, whose counts survive when the process under test is killed. */
export async function spawnModelServer(): Promise<ModelServer> {
  const child = spawn(process.execPath, [script], { stdio: ['pipe', 'pipe', 'inherit'] })
  const died = once(child, 'exit').then(([code]) => {
    throw new Error(`the model server ended with code ${code} before it listened`)
  })
  const line = once(createInterface(child.stdout), 'line')
  const [origin] = (await Promise.race([line, died])) as [string]
  died.catch(() => {})
  const stop = async () => {
    const ended = once(child, 'exit')
    child.stdin.end()
    await ended
  }
  return { ...controlsOf(origin), stop }
}

if (process.argv[1] === script) {
  const server = await startModelServer()
  console.log(new URL(server.url).origin)
  // The end of its standard input, which also comes when the parent is killed, is its order to stop.
  process.stdin.resume().once('end', () => server.stop())
}

import { readFileSync } from 'node:fs'

/** Somebody who is not root and has an entry in /etc/passwd, as Postgres wants it. */
export function ordinaryUser(): { uid: number; gid: number } {
  const lines = readFileSync('/etc/passwd', 'utf8').trim().split('\n')
  const ids = lines.map((line) => line.split(':').slice(2, 4).map(Number) as [number, number])
  const [uid, gid] = ids.find(([id]) => id > 0 && id < 65_534)!
  return { uid, gid }
}

import { join } from 'node:path'

/** Where everything lies inside the directory that the caller gave. Nothing else in this package joins these names. */
export interface Layout {
  directory: string
  /** Says that the directory is ours, and to a person what it is. */
  marker: string
  /** Contains one file while the lock is held. */
  lock: string
  /** One empty file for each user of the server, named after its process. */
  users: string
  /** The identity of the process that stops the server when all its users were killed. */
  watchdog: string
  /** The last port, so that the url stays the same from one start to the next whenever the port is free. */
  port: string
  log: string
  /** Data and password, which appear together by one rename once `initdb` is through. */
  cluster: string
  data: string
  password: string
  postmasterPid: string
}

export function layoutOf(directory: string): Layout {
  const cluster = join(directory, 'cluster')
  const data = join(cluster, 'data')
  return {
    directory,
    marker: join(directory, 'triphase-embedded.json'),
    lock: join(directory, 'lock'),
    users: join(directory, 'users'),
    watchdog: join(directory, 'watchdog'),
    port: join(directory, 'port'),
    log: join(directory, 'server.log'),
    cluster,
    data,
    password: join(cluster, 'password'),
    postmasterPid: join(data, 'postmaster.pid'),
  }
}

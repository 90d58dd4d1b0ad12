const PURE = 'has nothing to do with the database'

/** Files of the engine's tests that do not run a second time through PgBouncer, each with the reason. */
export const NOT_POOLED_FILES: Readonly<Record<string, string>> = {
  'support/**': "about the tests' own tools",
  'pooler/**': 'starts poolers of its own',
  'races/**': 'two sessions wait for each other and are told apart by their processes on the server',
  'liveness/refusals.test.ts': 'about what the server itself refuses; test/pooler has what PgBouncer does',
  'liveness/no-connection-left.test.ts': 'fills a server of its own',
  'liveness/session.test.ts':
    'about connections that lead to the server itself; pooler/notifications.test.ts has the others',
  'maintenance/connection-check.test.ts': 'about what the server itself lets in',
  'guard/pool.test.ts': 'writes into temporary tables, which are of a session',
  'inference/**': PURE,
  '{backoff,config,duration,errors,log,notifier}.test.ts': PURE,
  'liveness/{heart,machine,peer-watch}.test.ts': PURE,
  'queue/{claim-failed,claims,lookahead,marks}.test.ts': PURE,
  'staged/table.test.ts': PURE,
  '{adviser,detached}.test.ts': PURE,
  'queue/ledger.test.ts': PURE,
  'liveness/failover.test.ts': 'waits for notifications to come back, as none come through a pooler',
  'store/plans.test.ts': 'about the plans that one connection of the server keeps',
  'guard/table.test.ts': PURE,
  'sweeps/page-reader.test.ts': PURE,
  'sweeps/{order,partitions,paging,table}.test.ts':
    'about the statements on one table, which pooled runs of sweeps go through too',
  'sweeps/crash-points.test.ts':
    'its proxy stands before the server; sweeps/killed.test.ts kills processes at any point',
  'sweeps/limits.test.ts': 'waits for clocks and limits of the engine, for half a minute',
}

const KEEPS =
  'looks at the connections on the server, and there they are the pooler’s: they outlive the client’s'
const SETS = 'sets something for a session, which a pooler would lend to other tests'

/** Single tests, by file and full name. */
export const NOT_POOLED_TESTS: Readonly<Record<string, string>> = {
  'staged/killed.test.ts > killed-store-under-way: The answer is on its way to the database, and arrives after the death of its sender':
    'a pooler that sees its client go does not always pass on what it had sent last',
  'engine.test.ts > start and stop > stopping is leaving: no process, no connection, nothing held': KEEPS,
  'engine.test.ts > connections are counted by pool, and are where their names say': KEEPS,
  'liveness/connection.test.ts > a database that goes away in the middle > ends all connections, over and over, while 100 jobs run: each is done exactly once':
    'ends connections on the server, which serve other tests too; pooler/faults.test.ts does it to a PgBouncer of its own',
  'liveness/connection.test.ts > a database that goes away in the middle > ends idle connections of both pools: it is reported, and nothing else happens':
    KEEPS,
  'store/database.test.ts > a connection that listens is told what arrives and its end, and stays open however rarely it is used':
    'a pooler lends each statement a connection of its own choice, and delivers no notifications',
  'store/database.test.ts > a connection that leads to a server that only reads, since a failover, is not used again':
    SETS,
  'store/transactor.test.ts > pgTransactor > a connection that leads to a server that only reads, since a failover, is not used again':
    SETS,
  'store/database.test.ts > a statement that takes too long > is given up, cancelled on the server, and its connection is not used again':
    KEEPS,
}

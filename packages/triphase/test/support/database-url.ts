/** The URL of the Postgres that the tests use, with the rights to create schemas in it. */
export function testDatabaseUrl(): string {
  return variable('TRIPHASE_TEST_URL', 'give it the URL of a Postgres that the tests may use')
}

/** The URL that engines under test connect to: through PgBouncer where the tests run a second time. */
export function testUrl(): string {
  if (!isPooled()) return testDatabaseUrl()
  return variable('TRIPHASE_TEST_POOLER_URL', 'run the tests from the root of the repository')
}

/** Whether this is the second run of the tests, through a PgBouncer in transaction mode. */
export function isPooled(): boolean {
  return process.env.TRIPHASE_TEST_POOLED !== undefined
}

function variable(name: string, remedy: string): string {
  const url = process.env[name]
  if (!url) throw new Error(`${name} is not set: ${remedy}`)
  return url
}

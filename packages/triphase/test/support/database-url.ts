/** The URL of the Postgres that the tests use, with the rights to create schemas in it. */
export function testDatabaseUrl(): string {
  const url = process.env.TRIPHASE_TEST_URL
  if (!url)
    throw new Error('TRIPHASE_TEST_URL is not set: give it the URL of a Postgres that the tests may use')
  return url
}

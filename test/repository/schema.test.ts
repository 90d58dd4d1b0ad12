import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type EmbeddedPostgres, startEmbeddedPostgres } from '@triphase/embedded'
import { Client } from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { dumpSchema } from '../../scripts/check-schema.ts'

let folder: string
let server: EmbeddedPostgres
let client: Client

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'triphase-dump-'))
  server = await startEmbeddedPostgres({ directory: join(folder, 'postgres') })
  client = new Client({ connectionString: server.url })
  await client.connect()
})

afterAll(async () => {
  await client?.end()
  await server?.stop()
  rmSync(folder, { recursive: true, force: true })
})

const SHOP = `
CREATE SCHEMA shop;
COMMENT ON SCHEMA shop IS 'It''s a shop';
CREATE TYPE shop.state AS ENUM ('open', 'closed');
CREATE DOMAIN shop.name AS text NOT NULL CHECK (value <> '');
CREATE SEQUENCE shop.number AS integer START 5 CYCLE;
CREATE TABLE shop.shelf (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  state shop.state NOT NULL DEFAULT 'open',
  label shop.name COLLATE "C",
  width integer CONSTRAINT wide CHECK (width > 0),
  twice integer GENERATED ALWAYS AS (width * 2) STORED,
  UNIQUE (label, width)
) WITH (fillfactor = 50, toast.autovacuum_enabled = false);
COMMENT ON COLUMN shop.shelf.width IS 'in metres';
COMMENT ON CONSTRAINT wide ON shop.shelf IS 'wide enough';
CREATE INDEX open_shelf ON shop.shelf (label DESC) WHERE state = 'open';
CREATE TABLE shop.sale (sold_at timestamptz, shelf bigint REFERENCES shop.shelf) PARTITION BY RANGE (sold_at);
CREATE INDEX sale_time ON shop.sale (sold_at);
CREATE TABLE shop.sale_2026 PARTITION OF shop.sale FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE shop.stock (region text) PARTITION BY LIST (region);
CREATE UNLOGGED TABLE shop.stock_north PARTITION OF shop.stock FOR VALUES IN ('north');
CREATE VIEW shop.open_shelves AS SELECT id FROM shop.shelf WHERE state = 'open';
CREATE FUNCTION shop.twice(n integer DEFAULT 1) RETURNS integer LANGUAGE sql AS 'SELECT n * 2';
CREATE FUNCTION shop.refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER closed BEFORE DELETE ON shop.shelf FOR EACH ROW EXECUTE FUNCTION shop.refuse();
CREATE STATISTICS shop.widths ON state, width FROM shop.shelf;
CREATE SCHEMA shop2;
CREATE TABLE shop2.other (id bigint);
COMMENT ON TABLE shop2.other IS 'elsewhere';
`

async function dumpOf(sql: string): Promise<string> {
  await client.query('DROP SCHEMA IF EXISTS shop, shop2 CASCADE')
  await client.query(sql)
  return dumpSchema(client, 'shop')
}

test('the dump has every kind of object, and no partition by time', async () => {
  expect(await dumpOf(SHOP)).toMatchInlineSnapshot(`
    "CREATE TYPE shop.state AS ENUM ('open', 'closed');

    CREATE DOMAIN shop.name AS text NOT NULL CHECK ((VALUE <> ''::text));

    CREATE SEQUENCE shop.number AS integer START 5 INCREMENT 1 MINVALUE 1 MAXVALUE 2147483647 CACHE 1 CYCLE;

    CREATE SEQUENCE shop.shelf_id_seq AS bigint START 1 INCREMENT 1 MINVALUE 1 MAXVALUE 9223372036854775807 CACHE 1 OWNED BY shop.shelf.id;

    CREATE TABLE shop.sale (
      sold_at timestamp with time zone,
      shelf bigint,
      CONSTRAINT sale_shelf_fkey FOREIGN KEY (shelf) REFERENCES shop.shelf(id)
    ) PARTITION BY RANGE (sold_at);

    CREATE TABLE shop.shelf (
      id bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
      state shop.state NOT NULL DEFAULT 'open'::shop.state,
      label shop.name COLLATE "C",
      width integer,
      twice integer GENERATED "s" AS (width * 2),
      CONSTRAINT shelf_pkey PRIMARY KEY (id),
      CONSTRAINT shelf_label_width_key UNIQUE (label, width),
      CONSTRAINT wide CHECK ((width > 0))
    ) WITH (fillfactor=50, toast.autovacuum_enabled=false);

    CREATE TABLE shop.stock (
      region text
    ) PARTITION BY LIST (region);

    CREATE UNLOGGED TABLE shop.stock_north PARTITION OF shop.stock FOR VALUES IN ('north') (
      region text
    );

    CREATE INDEX sale_time ON ONLY shop.sale USING btree (sold_at);

    CREATE INDEX open_shelf ON shop.shelf USING btree (label DESC) WHERE (state = 'open'::shop.state);

    CREATE UNIQUE INDEX shelf_label_width_key ON shop.shelf USING btree (label, width);

    CREATE UNIQUE INDEX shelf_pkey ON shop.shelf USING btree (id);

    CREATE VIEW shop.open_shelves AS
     SELECT id
       FROM shop.shelf
      WHERE (state = 'open'::shop.state);

    CREATE OR REPLACE FUNCTION shop.refuse()
     RETURNS trigger
     LANGUAGE plpgsql
    AS $function$BEGIN RETURN NULL; END$function$;

    CREATE OR REPLACE FUNCTION shop.twice(n integer DEFAULT 1)
     RETURNS integer
     LANGUAGE sql
    AS $function$SELECT n * 2$function$;

    CREATE TRIGGER closed BEFORE DELETE ON shop.shelf FOR EACH ROW EXECUTE FUNCTION shop.refuse();

    CREATE STATISTICS shop.widths ON state, width FROM shop.shelf;

    COMMENT ON SCHEMA shop IS 'It''s a shop';

    COMMENT ON TABLE COLUMN shop.shelf.width IS 'in metres';

    COMMENT ON TABLE CONSTRAINT wide on shop.shelf IS 'wide enough';
    "
  `)
})

test('the dump depends on nothing but the structure', async () => {
  const dump = await dumpOf(SHOP)
  await client.query(
    `SET search_path = shop, public; SET timezone = 'Asia/Tokyo'; INSERT INTO shop.shelf (label) VALUES ('a')`,
  )
  expect(await dumpSchema(client, 'shop')).toBe(dump)
  await client.query('RESET search_path; RESET timezone')
  expect(await dumpOf(`CREATE SCHEMA shop2; ${SHOP.replace('CREATE SCHEMA shop2;', '')}`)).toBe(dump)
})

test.each([
  'ALTER TABLE shop.shelf ALTER width SET NOT NULL',
  `ALTER TABLE shop.shelf ALTER state SET DEFAULT 'closed'`,
  'ALTER TABLE shop.sale ALTER shelf TYPE integer',
  'ALTER TABLE shop.shelf ALTER label SET STORAGE EXTERNAL',
  'ALTER TABLE shop.shelf ALTER label SET COMPRESSION pglz',
  'ALTER TABLE shop.shelf RESET (fillfactor)',
  'ALTER TABLE shop.shelf DROP CONSTRAINT wide',
  'ALTER TABLE shop.shelf SET UNLOGGED',
  'ALTER TABLE shop.shelf ADD COLUMN more text',
  'ALTER INDEX shop.open_shelf RENAME TO shelf_open',
  'ALTER INDEX shop.open_shelf SET (fillfactor = 70)',
  'DROP INDEX shop.sale_time',
  `ALTER TYPE shop.state ADD VALUE 'gone'`,
  'ALTER SEQUENCE shop.number NO CYCLE',
  'CREATE TABLE shop.sale_rest PARTITION OF shop.sale DEFAULT',
  `CREATE OR REPLACE FUNCTION shop.twice(n integer DEFAULT 1) RETURNS integer LANGUAGE sql AS 'SELECT n + n'`,
  'DROP TRIGGER closed ON shop.shelf',
  `COMMENT ON TABLE shop.shelf IS 'new'`,
])('the dump shows a change: %s', async (change) => {
  const dump = await dumpOf(SHOP.replace('REFERENCES shop.shelf', ''))
  await client.query(change)
  expect(await dumpSchema(client, 'shop')).not.toBe(dump)
})

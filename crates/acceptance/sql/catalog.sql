-- Describes the extension's objects in the catalog, with one line for each fact. The output is the
-- same in two databases with the same version of the extension. No line of the output contains an
-- oid, because oids differ between databases. The number of a column is its position among the
-- table's existing columns, because attnum also counts dropped columns.
WITH schema AS (
  SELECT n.oid, n.nspowner, n.nspacl, 'schema ' || n.nspname AS title FROM pg_namespace n
  WHERE n.nspname IN ('lead_audit', 'lead_audit_internal')),
class AS (
  SELECT c.*, format('%s %s', CASE c.relkind WHEN 'r' THEN 'table'
      WHEN 'p' THEN 'partitioned table' WHEN 'v' THEN 'view' WHEN 'i' THEN 'index'
      WHEN 'S' THEN 'sequence' WHEN 'c' THEN 'composite type'
      ELSE 'relation ' || c.relkind::text END, c.oid::regclass) AS title
  FROM pg_class c JOIN schema s ON s.oid = c.relnamespace),
proc AS (
  SELECT p.*, 'function ' || p.oid::regprocedure AS title
  FROM pg_proc p JOIN schema s ON s.oid = p.pronamespace),
type AS (
  SELECT t.*, 'type ' || t.oid::regtype AS title
  FROM pg_type t JOIN schema s ON s.oid = t.typnamespace
  WHERE t.typtype <> 'c' AND t.typelem = 0),
event AS (
  SELECT e.*, 'event trigger ' || quote_ident(e.evtname) AS title FROM pg_event_trigger e
  JOIN pg_depend d
    ON d.classid = 'pg_event_trigger'::regclass AND d.objid = e.oid AND d.deptype = 'e'),
attribute AS (
  SELECT a.*, c.title || ' column ' || quote_ident(a.attname) AS title, c.relkind,
    row_number() OVER (PARTITION BY a.attrelid ORDER BY a.attnum) AS place
  FROM class c
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
object(classid, objid, title) AS (
  SELECT 'pg_class'::regclass, oid, title FROM class
  UNION ALL SELECT 'pg_proc'::regclass, oid, title FROM proc
  UNION ALL SELECT 'pg_type'::regclass, oid, title FROM type
  UNION ALL SELECT 'pg_event_trigger'::regclass, oid, title FROM event
  UNION ALL SELECT 'pg_namespace'::regclass, oid, title FROM schema
  UNION ALL SELECT 'pg_extension'::regclass, oid, 'extension'
    FROM pg_extension WHERE extname = 'lead_audit'
  UNION ALL SELECT 'pg_constraint'::regclass, k.oid, format('%s constraint %I', c.title, k.conname)
    FROM class c JOIN pg_constraint k ON k.conrelid = c.oid
  UNION ALL SELECT 'pg_trigger'::regclass, t.oid, format('%s trigger %I', c.title, t.tgname)
    FROM class c JOIN pg_trigger t ON t.tgrelid = c.oid
  UNION ALL SELECT 'pg_policy'::regclass, p.oid, format('%s policy %I', c.title, p.polname)
    FROM class c JOIN pg_policy p ON p.polrelid = c.oid
  UNION ALL SELECT 'pg_rewrite'::regclass, r.oid, format('%s rule %I', c.title, r.rulename)
    FROM class c JOIN pg_rewrite r ON r.ev_class = c.oid
),
acl(title, acl) AS (
  SELECT title,
    coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner))
    FROM class WHERE relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
  UNION ALL SELECT title, attacl FROM attribute WHERE attacl IS NOT NULL
  UNION ALL SELECT title, coalesce(proacl, acldefault('f', proowner)) FROM proc
  UNION ALL SELECT title, coalesce(typacl, acldefault('T', typowner)) FROM type
  UNION ALL SELECT title, coalesce(nspacl, acldefault('n', nspowner)) FROM schema
  UNION ALL SELECT o.title || ' (as pg_dump takes it for granted)', i.initprivs
    FROM pg_init_privs i
    JOIN object o ON o.classid = i.classoid AND o.objid = i.objoid AND i.objsubid = 0
)
SELECT fact FROM (
  SELECT format('extension: version %s, %s, %s', extversion,
                CASE WHEN extrelocatable THEN 'relocatable' ELSE 'not relocatable' END,
                extnamespace::regnamespace)
  FROM pg_extension WHERE extname = 'lead_audit'
  UNION ALL
  SELECT format('extension: pg_dump takes the rows of %s, %L', t.relation::regclass, t.condition)
  FROM pg_extension x
  CROSS JOIN LATERAL unnest(x.extconfig, x.extcondition) t(relation, condition)
  WHERE x.extname = 'lead_audit'
  UNION ALL
  SELECT format('extension: has the member %s',
                pg_describe_object(d.classid, d.objid, d.objsubid))
  FROM pg_depend d
  JOIN pg_extension x ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = x.oid
    AND x.extname = 'lead_audit'
  WHERE d.deptype = 'e'
  UNION ALL
  SELECT format('%s: owner %s, persistence %s, row security %s/%s, options %s, access method %s,'
                ' replica identity %s, partition key %s',
                title, relowner::regrole, relpersistence, relrowsecurity, relforcerowsecurity,
                reloptions, (SELECT amname FROM pg_am WHERE oid = relam), relreplident,
                pg_get_partkeydef(oid))
  FROM class
  UNION ALL
  SELECT format('%s: place %s, type %s, not null %s, default %s, collation %s, storage %s,'
                ' compression %s, identity %s, generated %s, options %s, statistics %s',
                a.title, place, format_type(atttypid, atttypmod), attnotnull,
                pg_get_expr(d.adbin, d.adrelid), attcollation::regcollation, attstorage,
                attcompression, attidentity, attgenerated,
                -- This array omits the attribute option pg_attver, which PostgreSQL's minor
                -- releases from late 2026 on store with each column.
                ARRAY(SELECT o FROM unnest(attoptions) o WHERE o NOT LIKE 'pg_attver=%'),
                coalesce(attstattarget, -1))
  FROM attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
  UNION ALL
  SELECT format('%s: %s, %s', o.title, pg_get_constraintdef(k.oid),
                CASE WHEN k.convalidated THEN 'validated' ELSE 'not validated' END)
  FROM object o JOIN pg_constraint k ON k.oid = o.objid
  WHERE o.classid = 'pg_constraint'::regclass
  UNION ALL
  SELECT format('%s: %s, unique %s, primary %s, valid %s, replica identity %s', c.title,
                pg_get_indexdef(i.indexrelid), indisunique, indisprimary, indisvalid,
                indisreplident)
  FROM class c JOIN pg_index i ON i.indexrelid = c.oid
  UNION ALL
  SELECT format('%s: %s, enabled %s', o.title, pg_get_triggerdef(t.oid), t.tgenabled)
  FROM object o JOIN pg_trigger t ON t.oid = o.objid WHERE o.classid = 'pg_trigger'::regclass
  UNION ALL
  SELECT format('%s: %s, roles %s, using %s, check %s', o.title, p.polcmd, p.polroles::regrole[],
                pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
  FROM object o JOIN pg_policy p ON p.oid = o.objid WHERE o.classid = 'pg_policy'::regclass
  UNION ALL
  SELECT format('%s: %s, enabled %s', o.title, pg_get_ruledef(r.oid), r.ev_enabled)
  FROM object o JOIN pg_rewrite r ON r.oid = o.objid WHERE o.classid = 'pg_rewrite'::regclass
  UNION ALL
  SELECT format('%s: %s', title, pg_get_viewdef(oid)) FROM class WHERE relkind IN ('v', 'm')
  UNION ALL
  SELECT format('%s: %s from %s by %s, %s to %s, cache %s, cycle %s, owned by %s', c.title,
                format_type(s.seqtypid, NULL), s.seqstart, s.seqincrement, s.seqmin, s.seqmax,
                s.seqcache, s.seqcycle,
                (SELECT string_agg(
                   pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid), ' ')
                 FROM pg_depend d WHERE d.objid = c.oid AND d.deptype IN ('a', 'i')))
  FROM class c JOIN pg_sequence s ON s.seqrelid = c.oid
  UNION ALL
  SELECT format('%s: owner %s, returns %s, library %s, cost %s, rows %s, support %s,'
                ' arguments %s, settings %s, %s',
                title, proowner::regrole, pg_get_function_result(oid), probin, procost, prorows,
                prosupport::regproc, pg_get_function_arguments(oid), proconfig,
                pg_get_functiondef(oid))
  FROM proc WHERE prokind <> 'a'
  UNION ALL
  SELECT format('%s: owner %s, kind %s, base %s, not null %s, default %s, labels %s', title,
                typowner::regrole, typtype, format_type(typbasetype, typtypmod), typnotnull,
                typdefault,
                (SELECT string_agg(enumlabel, ', ' ORDER BY enumsortorder)
                 FROM pg_enum WHERE enumtypid = t.oid))
  FROM type t
  UNION ALL
  SELECT format('%s: on %s, tags %s, enabled %s, owner %s, calls %s', title, evtevent, evttags,
                evtenabled, evtowner::regrole, evtfoid::regprocedure)
  FROM event
  UNION ALL
  SELECT format('%s: comment %L', o.title, d.description)
  FROM object o
  JOIN pg_description d ON d.classoid = o.classid AND d.objoid = o.objid AND d.objsubid = 0
  UNION ALL
  SELECT format('%s: comment %L', a.title, d.description)
  FROM attribute a
  JOIN pg_description d
    ON d.classoid = 'pg_class'::regclass AND d.objoid = a.attrelid AND d.objsubid = a.attnum
  UNION ALL
  SELECT format('%s: %s may %s%s', a.title,
                CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE x.grantee::regrole::text END,
                x.privilege_type, CASE WHEN x.is_grantable THEN ' and grant it' END)
  FROM acl a CROSS JOIN LATERAL aclexplode(a.acl) x
) f(fact) ORDER BY fact COLLATE "C"

-- PostgreSQL 13 has no int8multirange. What lead_audit and the lead-audit command need of it is here under the same names; its text is
-- the same, so that dumps and exports are.
CREATE DOMAIN lead_audit.int8multirange AS text CHECK (VALUE ~ '^\{(\[-?\d+,-?\d+\)(,\[-?\d+,-?\d+\))*)?\}$');
COMMENT ON DOMAIN lead_audit.int8multirange IS 'A set of ids in the text of the int8multirange that PostgreSQL has since 14: {[1,4),[6,7)} is 1, 2, 3 and 6.';

CREATE FUNCTION lead_audit.unnest(ids lead_audit.int8multirange) RETURNS SETOF int8range
LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
  SELECT r[1]::int8range FROM regexp_matches($1::text, '\[[^)]*\)', 'g') r
$$;
COMMENT ON FUNCTION lead_audit.unnest(lead_audit.int8multirange) IS 'The ranges of a set of ids, ascending: PostgreSQL''s function of this name, since 14.';

CREATE FUNCTION lead_audit.joined(ranges int8range[]) RETURNS lead_audit.int8multirange
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT '{' || coalesce(string_agg(format('[%s,%s)', j.first, j.last), ',' ORDER BY j.first), '') || '}'
  FROM (
    SELECT min(s.first) AS first, max(s.last) AS last
    FROM (
      SELECT b.*, count(*) FILTER (WHERE b.is_apart) OVER (ORDER BY b.first, b.last) AS number
      FROM (
        SELECT lower(r) AS first, upper(r) AS last,
               lower(r) > max(upper(r)) OVER (ORDER BY lower(r), upper(r) ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS is_apart
        FROM unnest($1) r WHERE NOT isempty(r)
      ) b
    ) s
    GROUP BY s.number
  ) j
$$;
COMMENT ON FUNCTION lead_audit.joined(int8range[]) IS 'Internal to range_agg(): the set of the ids that are in any of the ranges.';

CREATE AGGREGATE lead_audit.range_agg(int8range) (sfunc = array_append, stype = int8range[], finalfunc = lead_audit.joined, initcond = '{}');
COMMENT ON AGGREGATE lead_audit.range_agg(int8range) IS 'The set of the ids that are in any of the ranges: PostgreSQL''s function of this name, since 14.';

CREATE FUNCTION lead_audit.overlaps(ids lead_audit.int8multirange, others lead_audit.int8multirange) RETURNS boolean
LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
  SELECT EXISTS (SELECT FROM lead_audit.unnest($1) a, lead_audit.unnest($2) b WHERE a && b)
$$;
COMMENT ON FUNCTION lead_audit.overlaps(lead_audit.int8multirange, lead_audit.int8multirange) IS 'Internal to the operator &&.';
CREATE OPERATOR lead_audit.&& (leftarg = lead_audit.int8multirange, rightarg = lead_audit.int8multirange, function = lead_audit.overlaps, commutator = OPERATOR(lead_audit.&&));
COMMENT ON OPERATOR lead_audit.&& (lead_audit.int8multirange, lead_audit.int8multirange) IS 'Whether two sets of ids have one in common: PostgreSQL''s operator of this name, since 14.';

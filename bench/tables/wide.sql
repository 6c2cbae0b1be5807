-- Creates a table `leads` with 100 columns and :n rows.
SELECT format('CREATE TABLE public.leads (id varchar NOT NULL PRIMARY KEY, %s)',
  string_agg(format('column_%s %s', lpad(i::text, 2, '0'),
    (ARRAY['text', 'integer', 'numeric(12,2)', 'timestamptz', 'boolean'])[1 + i % 5]),
    ', ' ORDER BY i))
FROM generate_series(1, 99) i \gexec
SELECT format('INSERT INTO public.leads SELECT lpad(to_hex(g), 32, ''0''), %s'
    ' FROM generate_series(1, %s) g',
  string_agg((ARRAY['''value '' || g', 'g', 'g / 100.0',
    '''2026-01-01''::timestamptz + g * interval ''1 s''', 'g % 2 = 0'])[1 + i % 5],
    ', ' ORDER BY i), :n)
FROM generate_series(1, 99) i \gexec
ANALYZE public.leads;


-- The triggers' arguments, of both functions: the channel; the key's column; other keys' columns, as an array; the table's
-- name where it is partitioned, or ''; and for announce_rows on UPDATE what has to change, as an array. Rows are announced
-- with the rights of who writes them: to_jsonb calls casts to json, which are any type owner's code.

CREATE OR REPLACE FUNCTION notifymux.announce_row() RETURNS trigger LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    after record;
    before record;
    payload text;
BEGIN
    IF TG_OP = 'DELETE' THEN after := OLD; ELSE after := NEW; END IF;
    IF TG_OP = 'INSERT' THEN before := NEW; ELSE before := OLD; END IF;
    payload := notifymux.row_payload(TG_ARGV, TG_TABLE_NAME, TG_OP, after, before);
    IF payload IS NULL THEN
        payload := notifymux.change(TG_ARGV, TG_TABLE_NAME, TG_OP, notifymux.named_columns(after, TG_ARGV),
            notifymux.named_columns(before, TG_ARGV), NULL);
    END IF;
    PERFORM notifymux.notify(TG_ARGV[0], payload);
    RETURN NULL;
END
$$;

-- The columns of a row that a trigger's arguments name, those that can be JSON.
CREATE OR REPLACE FUNCTION notifymux.named_columns(changed anyelement, arguments text[]) RETURNS jsonb
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    named jsonb := '{}';
    name text;
    value jsonb;
BEGIN
    FOREACH name IN ARRAY ARRAY['id', arguments[1]] || arguments[2]::text[] LOOP
        BEGIN
            EXECUTE format('SELECT notifymux.json_or_null(($1).%I)', name) INTO value USING changed;
        EXCEPTION WHEN OTHERS THEN
            value := NULL;  -- there is no such column, or no longer
        END;
        named := named || jsonb_build_object(name, value);
    END LOOP;
    RETURN named;
END
$$;

-- The query names no table and no type: who writes by a view may have no right to the schema that holds them. A row is
-- r.*, because r may be a column of it, and its columns are taken from r: of (row).column PostgreSQL takes another one once
-- a column has been dropped. The two transition tables of an UPDATE have the same rows in the same order.
CREATE OR REPLACE FUNCTION notifymux.announce_rows() RETURNS trigger LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    identifying text[] := ARRAY['id', TG_ARGV[1]] || TG_ARGV[2]::text[];
    must_change text[] := TG_ARGV[4]::text[];
    columns text[] := ARRAY(
        SELECT attname FROM pg_attribute
        WHERE attrelid = TG_RELID AND attname = ANY (identifying || must_change) AND NOT attisdropped
    );
    after text := CASE TG_OP WHEN 'DELETE' THEN 'old' ELSE 'new' END;
    before text := CASE TG_OP WHEN 'INSERT' THEN 'new' ELSE 'old' END;
    rows text := '(SELECT r.*::record AS whole, row_number() OVER () AS number%s FROM %s AS r) AS %s';
    named text := ' || jsonb_build_object(%L, notifymux.json_or_null(%s.c%s))';
    taken text;
    after_named text;
    before_named text;
    condition text := 'true';
    source text;
    payload text;
BEGIN
    SELECT string_agg(format(', r.%I AS c%s', name, number), ''),
        string_agg(format(named, name, after, number), '') FILTER (WHERE name = ANY (identifying)),
        string_agg(format(named, name, before, number), '') FILTER (WHERE name = ANY (identifying))
    INTO taken, after_named, before_named
    FROM unnest(columns) WITH ORDINALITY AS c (name, number);
    source := CASE WHEN TG_OP = 'UPDATE' THEN
        format(rows, taken, 'new_rows', 'new') || ' JOIN ' || format(rows, taken, 'old_rows', 'old') || ' USING (number)'
        ELSE format(rows, taken, after || '_rows', after) END;
    IF TG_OP = 'UPDATE' AND must_change <@ columns THEN
        SELECT format('record_image_ne(ROW(%s), ROW(%s))', string_agg('new.c' || number, ', '),
            string_agg('old.c' || number, ', '))
        INTO condition
        FROM unnest(columns) WITH ORDINALITY AS c (name, number) WHERE name = ANY (must_change);
    END IF;
    FOR payload IN EXECUTE format(
        'SELECT coalesce(notifymux.row_payload($1, $2, $3, %s.whole, %s.whole),'
        ' notifymux.change($1, $2, $3, ''{}''::jsonb%s, ''{}''::jsonb%s, NULL)::text) FROM %s WHERE %s ORDER BY number',
        after, before, after_named, before_named, source, condition
    ) USING TG_ARGV, TG_TABLE_NAME::text, TG_OP LOOP
        PERFORM notifymux.notify(TG_ARGV[0], payload);
    END LOOP;
    RETURN NULL;
END
$$;

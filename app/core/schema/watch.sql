
-- Announces every row that is inserted, updated or deleted; called again, it changes how.
CREATE OR REPLACE FUNCTION notifymux.watch(
    relation regclass, channel text, key text DEFAULT 'match_id', only_if_changed text[] DEFAULT NULL,
    per_statement boolean DEFAULT false, other_keys text[] DEFAULT '{}'
) RETURNS void LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    kind "char" := (SELECT relkind FROM pg_class WHERE oid = relation);
    wrong text;
    event text;
    transition text;
    condition text;
    arguments text;
BEGIN
    IF kind NOT IN ('r', 'p') THEN
        RAISE '% is no table', relation USING ERRCODE = 'wrong_object_type';
    END IF;
    IF channel IS NULL OR octet_length(channel) NOT BETWEEN 1 AND 63 OR starts_with(channel, 'pg_notify_mux') THEN
        RAISE 'a channel has 1 to 63 bytes, and does not begin with pg_notify_mux: %', coalesce(quote_literal(channel), 'NULL')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF per_statement AND (kind = 'p' OR EXISTS (SELECT FROM pg_inherits WHERE relation IN (inhparent, inhrelid))) THEN
        RAISE '% is partitioned or inherits, and a statement may name another table of these: use per_statement => false',
            relation USING ERRCODE = 'feature_not_supported';
    END IF;
    SELECT string_agg(coalesce(quote_ident(name), 'NULL'), ', ') INTO wrong
    FROM unnest(key || coalesce(other_keys, '{}') || only_if_changed) AS name
    WHERE NOT EXISTS (
        SELECT FROM pg_attribute
        WHERE attrelid = relation AND attname = name AND attnum > 0 AND NOT attisdropped AND attgenerated <> 'v'
    );
    IF wrong IS NOT NULL THEN  -- a trigger sees no value of a virtual generated column
        RAISE '% has no stored column %', relation, wrong USING ERRCODE = 'undefined_column';
    END IF;
    IF only_if_changed = '{}' THEN
        RAISE 'only_if_changed names no column' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    arguments := format('%L, %L, %L, %L', channel, key, coalesce(other_keys, '{}'),
        CASE kind WHEN 'p' THEN (SELECT relname FROM pg_class WHERE oid = relation) ELSE '' END);
    FOREACH event IN ARRAY ARRAY['INSERT', 'UPDATE', 'DELETE'] LOOP
        transition := '';
        condition := '';
        IF per_statement THEN
            transition := CASE event WHEN 'INSERT' THEN 'REFERENCING NEW TABLE AS new_rows'
                WHEN 'DELETE' THEN 'REFERENCING OLD TABLE AS old_rows'
                ELSE 'REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows' END;
        ELSIF event = 'UPDATE' AND only_if_changed IS NOT NULL THEN
            -- By their images: some types have no equality.
            condition := (
                SELECT format('WHEN (record_image_ne(ROW(%s), ROW(%s)))', string_agg(format('OLD.%I', name), ', '),
                    string_agg(format('NEW.%I', name), ', '))
                FROM unnest(only_if_changed) AS name
            );
        END IF;
        EXECUTE format('CREATE OR REPLACE TRIGGER %I AFTER %s ON %s %s FOR EACH %s %s EXECUTE FUNCTION notifymux.%I(%s)',
            'notifymux_' || lower(event), event, relation, transition,
            CASE WHEN per_statement THEN 'STATEMENT' ELSE 'ROW' END, condition,
            CASE WHEN per_statement THEN 'announce_rows' ELSE 'announce_row' END,
            arguments || CASE WHEN per_statement AND event = 'UPDATE' AND only_if_changed IS NOT NULL
                THEN format(', %L', only_if_changed) ELSE '' END);
    END LOOP;
    SELECT string_agg(quote_ident(tgname), ', ') INTO wrong FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = tgfoid
    WHERE tgrelid = relation AND NOT tgisinternal AND tgenabled <> 'D' AND pronamespace <> 'notifymux'::regnamespace
        AND strpos(pg_get_triggerdef(t.oid) || prosrc, quote_literal(channel)) > 0;
    IF wrong IS NOT NULL THEN
        RAISE WARNING '% also has a trigger that names the channel %: if it notifies, drop it (%)', relation, channel, wrong;
    END IF;
END
$$;

-- The opposite of watch.
CREATE OR REPLACE FUNCTION notifymux.unwatch(relation regclass) RETURNS void LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp SET client_min_messages = warning
AS $$
DECLARE
    event text;
BEGIN
    FOREACH event IN ARRAY ARRAY['insert', 'update', 'delete'] LOOP
        EXECUTE format('DROP TRIGGER IF EXISTS %I ON %s', 'notifymux_' || event, relation);
    END LOOP;
END
$$;

-- Whoever may write a watched table may call what its triggers call; none of it has more rights than its caller.
GRANT USAGE ON SCHEMA notifymux TO PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA notifymux TO PUBLIC;

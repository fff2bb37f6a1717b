
-- A payload that takes at most `room` bytes: "data" is null, and then the longest of the other members. It never fails.
CREATE OR REPLACE FUNCTION notifymux.shortened(payload text, room int) RETURNS text LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    short text;
BEGIN
    WITH members AS (
        SELECT key, value, octet_length(value::text) AS size FROM jsonb_each(payload::jsonb || '{"data": null}')
    ), counted AS (
        SELECT key, value,
            sum(size) OVER (ORDER BY size, key COLLATE "C") AS values_size,
            sum(octet_length(to_jsonb(key)::text) + 8) OVER () AS names_size  -- with ": ", ", " and null
        FROM members
    )
    SELECT jsonb_object_agg(key, CASE WHEN values_size + names_size <= room THEN value END) INTO short FROM counted;
    IF octet_length(short) <= room THEN
        RETURN short;
    END IF;
    RETURN '{"data": null}';
EXCEPTION WHEN OTHERS THEN
    RETURN '{"data": null}';  -- it is no JSON object
END
$$;

-- Some members of an object.
CREATE OR REPLACE FUNCTION notifymux.members(object jsonb, names text[]) RETURNS jsonb LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found jsonb := '{}';
    name text;
BEGIN
    FOREACH name IN ARRAY names LOOP
        found := found || jsonb_build_object(name, object -> name);
    END LOOP;
    RETURN found;
END
$$;

-- What is announced of a row: `arguments` are the trigger's, `named` and `former` have the columns that it names, as they
-- are and as they were. It needs no search_path, since its names are resolved now, and becomes part of its caller's plan.
CREATE OR REPLACE FUNCTION notifymux.change(
    arguments text[], relation text, operation text, named jsonb, former jsonb, data jsonb
) RETURNS jsonb LANGUAGE sql STABLE
RETURN CASE arguments[2] WHEN '{}' THEN '{}' ELSE notifymux.members(named, arguments[2]::text[]) END
    || jsonb_build_object(
        'table', coalesce(nullif(arguments[3], ''), relation),
        'operation', operation,
        'match_id', named -> arguments[1],
        'new_id', CASE WHEN operation <> 'DELETE' THEN named -> 'id' END,
        'old_id', CASE WHEN operation <> 'INSERT' THEN former -> 'id' END,
        'data', data
    );

-- The payload with the whole row; NULL where PostgreSQL can't make JSON of it: it stores values that it can't convert.
CREATE OR REPLACE FUNCTION notifymux.row_payload(
    arguments text[], relation text, operation text, after anyelement, before anyelement
) RETURNS text LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    data jsonb;
    former jsonb;
BEGIN
    data := to_jsonb(after);
    former := CASE operation WHEN 'UPDATE' THEN to_jsonb(before) ELSE data END;
    RETURN notifymux.change(arguments, relation, operation, data, former, data);
EXCEPTION WHEN OTHERS THEN
    RETURN NULL;
END
$$;

-- A value as JSON; NULL where that is not possible, or longer than any notification.
CREATE OR REPLACE FUNCTION notifymux.json_or_null(value anyelement) RETURNS jsonb LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN CASE WHEN octet_length(to_jsonb(value)::text) <= 1048576 THEN to_jsonb(value) END;
EXCEPTION WHEN OTHERS THEN
    RETURN NULL;
END
$$;

//! What of a log line is masked, and what stays.
#![allow(clippy::unwrap_used)]

use meshhook_secrets_core::redact::{
    denial,
    lexer::{Kind, Tokens},
    line::{Line, MaskedLine},
    names::Names,
    sql::{self, Also},
    taint::Taint,
    text,
};
use proptest::prelude::*;

fn masked(sql: &str) -> String {
    String::from_utf8(sql::mask(sql.as_bytes(), Also::default())).unwrap()
}

#[test]
fn literals_are_masked_and_nothing_else() {
    for (statement, expected) in [
        ("SELECT f('canary')", "SELECT f('***')"),
        ("SELECT f('it''s', E'a\\'b', '')", "SELECT f('***', E'***', '')"),
        (
            "SELECT U&'\\0041' || B'01' || x'ff' || N'x'",
            "SELECT U&'***' || B'***' || x'***' || N'***'",
        ),
        ("SELECT $$a'b$$, $x$ $$ $x$", "SELECT $$***$$, $$***$$"),
        ("SELECT a$1, $1, foo$$bar", "SELECT a$1, $1, foo$$bar"),
        ("SELECT 1, -2.5e-3, .5, 1_000, 0xff", "SELECT ***, -***, ***, ***, ***"),
        ("FOR i IN 1..10", "FOR i IN ***..***"),
        ("SELECT \"project_id\", t.\"name\"", "SELECT \"project_id\", t.\"name\""),
        ("SELECT \"sk_live_1234\" \"S3cret!\"", "SELECT \"***\" \"***\""),
        // An apostrophe in a comment, or in a name, turns nothing inside out.
        ("SELECT -- don't\n 'canary'", "SELECT -- don't\n '***'"),
        ("SELECT /* it's /* nested */ ' */ 'canary'", "SELECT /* it's /* nested */ ' */ '***'"),
        ("SELECT a--'\n, 'canary'", "SELECT a--'\n, '***'"),
        ("SELECT \"o'neil\", 'canary'", "SELECT \"***\", '***'"),
        // Continued on the next line, the escapes go on too.
        ("SELECT E'a'\n -- c'd\n 'b\\'canary', x", "SELECT E'***', x"),
        ("SELECT 'a' 'canary'", "SELECT '***' '***'"),
        // Cut off.
        ("SELECT f('canary", "SELECT f('***"),
        ("SELECT f($a$canary", "SELECT f($$***"),
        ("SELECT f(\"canary", "SELECT f(\"***"),
        ("SELECT f(/* canary", "SELECT f(/****"),
        // Depends on standard_conforming_strings: masked to the end.
        ("SELECT 'a\\', 'canary', x", "SELECT '***"),
        ("SELECT 'a\\'' || canary || '", "SELECT '***"),
        ("SELECT 'a\\\\', x", "SELECT '***', x"),
    ] {
        assert_eq!(masked(statement), expected, "{statement}");
        assert_eq!(masked(expected), expected, "masking again changes nothing");
    }
}

#[test]
fn positions_follow_the_masked_statement() {
    let statement = "SELECT 'é a long one', 'x' || öops FROM t";
    let at = |place| sql::mask_at(statement.as_bytes(), Also::default(), place).1;
    let text = masked(statement);
    let chars = |text: &str, part: &str| text[..text.find(part).unwrap()].chars().count() + 1;
    for part in ["SELECT", "öops", "FROM", "t"] {
        assert_eq!(at(chars(statement, part)), chars(&text, part), "{part}");
    }
    // Inside of a literal, at the end, behind it, and nowhere.
    assert_eq!(at(12), 8);
    let length = statement.chars().count();
    assert_eq!(at(length + 1), text.chars().count() + 1);
    assert_eq!(at(length + 2), 0);
    assert_eq!(at(0), 0);
}

#[test]
fn names_are_whole_words() {
    let names = Names::new(b"app.Store_Key(uuid, text), \"App\".\"inbox\" ,, rotate()");
    for text in [
        "SELECT meshhook_secrets.secret_put($1)",
        "secret_get",
        "\"SECRET_GET_MANY\"('x')",
        "call STORE_KEY('x')",
        "INSERT INTO inbox VALUES",
        "SELECT rotate()",
        "SELECT meshhook_secrets.U&\"secret\\005fput\"('x')",
    ] {
        assert!(names.mentioned_in(text.as_bytes()), "{text}");
    }
    for text in
        ["", "secret_list", "my_secret_get", "secret_getter", "inbox2", "éinbox", "uuid", "text"]
    {
        assert!(!names.mentioned_in(text.as_bytes()), "{text}");
    }
    // What everybody writes is no name.
    let names = Names::new(b"public.\"select\", app.FROM(int), insert, \"a.b(\", last");
    assert!(!names.mentioned_in(b"INSERT INTO t SELECT * FROM u"));
    assert!(names.mentioned_in(b"last('x')"), "quotes and parentheses are closed");
    let names = Names::new(b"app.store(uuid, inbox, \"last");
    assert!(names.mentioned_in(b"inbox") && names.mentioned_in(b"last"), "in doubt all of it");
}

// --- lines ----------------------------------------------------------------------------------------

const STATEMENT: &str = "SELECT meshhook_secrets.secret_put($1, 'NAME', 'canary')";

fn error(state: &[u8; 5], format: &'static str, message: &'static str) -> Line<'static> {
    Line {
        state: *state,
        format: format.as_bytes(),
        message: Some(message.as_bytes()),
        statement: Some(STATEMENT.as_bytes()),
        ..Line::default()
    }
}

fn message(line: Line) -> String {
    String::from_utf8(line.mask().message.unwrap()).unwrap()
}

#[test]
fn messages_keep_what_their_format_says() {
    for (state, format, text, expected) in [
        (
            b"22P02",
            "invalid input syntax for type %s: \"%s\"",
            "invalid input syntax for type uuid: \"can\"ary\"",
            "invalid input syntax for type uuid: \"***\"",
        ),
        (
            b"42703",
            "column \"%s\" does not exist",
            "column \"x\" does not exist\" does not exist",
            "column \"***\" does not exist",
        ),
        (
            b"42601",
            "%s at or near \"%s\"",
            "syntax error at or near \"canary\"",
            "syntax error at or near \"***\"",
        ),
        (
            b"22P02",
            "invalid input syntax for type %s: \"%s\"",
            "ungültige Eingabesyntax für Typ uuid: »x«",
            "ungültige Eingabesyntax für Typ uuid: »***",
        ),
        (
            b"22P02",
            "invalid input syntax for type %s: \"%s\"",
            "syntaxe en entrée invalide pour le type uuid : « x »",
            "syntaxe en entrée invalide pour le type uuid : «***",
        ),
        (b"22012", "division by zero", "division by zero", "division by zero"),
        (
            b"23505",
            "duplicate key value violates unique constraint \"%s\"",
            "duplicate key value violates unique constraint \"t_pkey\"",
            "duplicate key value violates unique constraint \"t_pkey\"",
        ),
        (
            b"42501",
            "permission denied for function %s",
            "permission denied for function secret_put",
            "permission denied for function secret_put",
        ),
        // Outside of quotes may be a whole statement.
        (
            b"00000",
            "cron job %ld %s: %s",
            "cron job 7 starting: SELECT meshhook_secrets.secret_put(p, 'N', 'canary')",
            "cron job 7 starting: SELECT meshhook_secrets.secret_put(p, '***",
        ),
        (b"00000", "ran %-10.*s", "ran secret_put($$canary$$)", "ran secret_put($***"),
        (b"00000", "took %.3f of %5ld%%", "took 0.1 of 7%", "took 0.1 of 7%"),
        (b"P0001", "%s", "refused canary", "refused ***"),
        (b"P0001", "%s", "refused 'x' of you", "refused '***"),
    ] {
        assert_eq!(message(error(state, format, text)), expected, "{text}");
    }
    // Raised by the host after a value went through: it may be in it in any shape.
    let raised = Line { ran: true, ..error(b"P0001", "%s", "refused yranac") };
    assert_eq!(message(raised), "***");
    let raised = Line { hint: Some(b"try yranac"), detail: Some(b"yranac"), ..raised };
    assert_eq!(raised.mask().hint.unwrap(), b"***");
    assert_eq!(raised.mask().detail.unwrap(), b"***");
    // Ours say nothing about values.
    let ours = Line { ours: true, detail: Some(b"There is no version 3 ('x')."), ..raised };
    assert_eq!(message(ours), "refused yranac");
    assert_eq!(ours.mask().detail.unwrap(), b"There is no version 3 ('x').");
}

#[test]
fn statements_in_messages_are_masked_as_statements() {
    for (format, start) in [
        ("statement: %s", "statement: "),
        ("statement: %s", "Anweisung: "),
        ("duration: %s ms  statement: %s", "duration: 0.1 ms  statement: "),
        ("%s %s%s%s: %s", "execute <unnamed>: "),
        ("duration: %s ms  %s %s%s%s: %s", "durée : 0.1 ms  execute <unnamed>: "),
    ] {
        let text = format!("{start}{STATEMENT}");
        let line = Line {
            state: *b"00000",
            format: format.as_bytes(),
            message: Some(text.as_bytes()),
            statement: Some(STATEMENT.as_bytes()),
            ..Line::default()
        };
        assert_eq!(message(line), format!("{start}{}", masked(STATEMENT)));
        let line = Line { detail: Some(b"parameters: $1 = 'x'"), ran: true, ..line };
        assert_eq!(line.mask().detail.unwrap(), b"parameters: $1 = '***'");
        let line = Line { statement: Some(b"another"), ..line };
        assert!(!message(line).contains("canary"));
    }
}

#[test]
fn plans_stay_readable() {
    let text = "duration: 0.020 ms  plan:\n\
        Query Text: SELECT f('it''s\nLimit  (cost=1', $1) -- don't\nFROM t\n\
        Query Parameters: $1 = 'can''ary\nx', $2 = NULL\n\
        Result  (cost=0.00..0.26 rows=1 width=32) (actual time=0.01..0.02 rows=1 loops=1)\n  \
          Output: f('canary'::text, E'a\\\\b'::text, 7)";
    let line = Line {
        format: b"duration: %.3f ms  plan:\n%s",
        message: Some(text.as_bytes()),
        ..Line::default()
    };
    let expected = "duration: 0.020 ms  plan:\n\
        Query Text: SELECT f('***', $1) -- don't\nFROM t\n\
        Query Parameters: $1 = '***', $2 = NULL\n\
        Result  (cost=0.00..0.26 rows=1 width=32) (actual time=0.01..0.02 rows=1 loops=1)\n  \
          Output: f('***'::text, E'***'::text, 7)";
    assert_eq!(message(line), expected);
    // The other formats are not read.
    let json = b"duration: 0.020 ms  plan:\n{\n  \"Query Text\": \"SELECT 'canary'\"\n}";
    let line = Line { message: Some(json), ..line };
    assert_eq!(message(line), "duration: 0.020 ms  plan:***");
}

#[test]
fn pgaudit_lines_stay_readable() {
    for (text, expected) in [
        (
            "AUDIT: SESSION,1,1,READ,SELECT,,,\"SELECT f('a,\"\"b\"\"')\",\"p,q\"",
            "AUDIT: SESSION,1,1,READ,SELECT,,,\"SELECT f('***')\",\"***\"",
        ),
        (
            "AUDIT: SESSION,1,1,READ,SELECT,TABLE,public.t,SELECT 'x',<none>",
            "AUDIT: SESSION,1,1,READ,SELECT,TABLE,public.t,SELECT '***',<none>",
        ),
        ("AUDIT: SESSION,1,1,READ,SELECT,,,\"SELECT 'x", "AUDIT: ***"),
    ] {
        let line = Line {
            format: b"AUDIT: %s,%ld,%ld,%s,%s",
            message: Some(text.as_bytes()),
            ..Line::default()
        };
        assert_eq!(message(line), expected);
    }
}

#[test]
fn details_keep_what_is_known_to_be_no_data() {
    for (detail, expected) in [
        ("parameters: $1 = 'ca''n', $2 = NULL", "parameters: $1 = '***', $2 = NULL"),
        ("Parameter: $1 = 'x'", "Parameter: $1 = '***'"),
        ("parameters: $1 = 'x' y", "parameters: ***"),
        ("prepare: PREPARE p AS SELECT 'x'", "prepare: PREPARE p AS SELECT '***'"),
        ("Failed process was running: SELECT f('x", "Failed process was running: SELECT f('***"),
        ("Key (name)=(x) already exists.", "Key (name)=(***) already exists."),
        ("Key (a, b)=(1, x) conflicts.", "Key (a, b)=(***)"),
        ("Failing row contains (1, x).", "Failing row contains (***"),
        ("Token \"x\" is invalid.", "Token \"***"),
        ("line 1: Document is empty\nx\n^", "line 1: ***"),
        ("The input string ended unexpectedly.", "The input string ended unexpectedly."),
        ("Schlüssel »(a)=(x)« existiert bereits.", "Schlüssel »***"),
        (
            "Process 1 waits for ShareLock on transaction 2; blocked by process 3.\n\
             Process 3 waits for ShareLock on tuple (0,1) of relation 4 of database 5; blocked by process 1.\n\
             Process 1: SELECT f($1)\nProcess 3: SELECT f('x')",
            "Process 1 waits for ShareLock on transaction 2; blocked by process 3.\n\
             Process 3 waits for ShareLock on tuple (0,1) of relation 4 of database 5; blocked by process 1.\n\
             Process 1: SELECT f($1)\nProcess 3: SELECT f(***",
        ),
    ] {
        let masked = String::from_utf8(text::detail(detail.as_bytes(), &Taint::default())).unwrap();
        assert_eq!(masked, expected, "{detail}");
    }
}

#[test]
fn contexts_keep_functions_lines_and_statements() {
    for (context, expected) in [
        (
            "SQL statement \"SELECT \"a\", 'x' -- it\"s\n FROM t\"\n\
             PL/pgSQL function w(uuid,text) line 3 at PERFORM\n\
             SQL statement \"SELECT w('y')\"\n\
             PL/pgSQL function inline_code_block line 1 at SQL statement",
            "SQL statement \"SELECT \"a\", '***' -- it\"s\n FROM t\"\n\
             PL/pgSQL function w(uuid,text) line 3 at PERFORM\n\
             SQL statement \"SELECT w('***')\"\n\
             PL/pgSQL function inline_code_block line 1 at SQL statement",
        ),
        (
            "SQL function \"w\" statement 1\nunnamed portal with parameters: $1 = 'a\nb', $2 = '7'",
            "SQL function \"w\" statement 1\nunnamed portal with parameters: $1 = '***', $2 = '***'",
        ),
        ("unnamed portal parameter $2 = 'x...'", "unnamed portal parameter $2 = '***'"),
        ("JSON data, line 1: ...anary\",x", "JSON data, line 1: ***"),
        ("COPY t, line 1, column c: \"x\"", "COPY t, line 1, column c: ***"),
        ("PL/pgSQL-Funktion w() Zeile 3 bei PERFORM\nx", "PL/pgSQL-Funktion w(***"),
        ("fonction PL/pgSQL « w »", "fonction PL/pgSQL «***"),
    ] {
        let masked =
            String::from_utf8(text::context(context.as_bytes(), &Taint::default())).unwrap();
        assert_eq!(masked, expected, "{context}");
    }
}

#[test]
fn known_values_are_found_wherever_they_are() {
    let json: &[u8] = br#"{"value":"can\"ary-\u0041","n":1}"#;
    let line = Line {
        format: b"%s",
        message: Some(b"no can\"ary-A"),
        context: Some(b"PL/pgSQL function canary_2 line 1 at RAISE"),
        statement: Some(b"SELECT f('it''s', 'canary_2')"),
        parameters: &[json.into()],
        ..Line::default()
    };
    let masked = line.mask();
    assert_eq!(masked.message.unwrap(), b"no ***", "not cut inside of a value");
    assert_eq!(masked.context.unwrap(), b"PL/pgSQL function *** line 1 at RAISE");
    let line = Line { message: Some(b"not can\\\"ary-\\u0041, it's 1"), ..line };
    assert_eq!(line.mask().message.unwrap(), b"not ***");
    // Names are no values: neither those of columns nor those of JSON's members.
    let body: &[u8] = br#"{"name": "value"}"#;
    let line = Line { context: Some(b"unnamed project value"), parameters: &[body.into()], ..line };
    let line = Line { statement: Some(b"SELECT 'canary_2', \"project\""), ..line };
    assert_eq!(line.mask().context.unwrap(), b"unnamed project ***");
    let line = Line { message: Some(b"a canary_2"), ..line };
    assert_eq!(line.mask().message.unwrap(), b"a ***");
}

#[test]
fn no_part_of_a_known_value_is_left_before_a_quotation() {
    for (literal, value) in [
        ("'can''ary'", "can'ary"),
        ("E'can\\'ary'", "can'ary"),
        ("E'can\\nary'", "can\nary"),
        ("E'can'\n  -- don''t\n 'a\\'ry'", "cana'ry"),
        ("'can'\n'a(ry'", "cana(ry"),
        ("$$can'a\"ry$$", "can'a\"ry"),
        // Where it ends depends on standard_conforming_strings.
        ("'can''ary\\', x", "can'ary\\"),
        ("'a\\', 'can''ary', x", "can'ary"),
        ("'a\\'b', 'can\\'ary', x", "can'ary"),
        // It looks like a list of parameters.
        ("'canary $1 = ''x'", "canary $1 = 'x"),
        // Two that overlap.
        ("'anary''1', 'the canary'", "the canary'1"),
        // Bytes and characters by their numbers.
        (r"E'can\'\x61\x7'", "can'a\x07"),
        (r"E'c\141n\47\7\541ry\53'", "can'\x07ary+"),
        (r"E'can\u0027\U00000061ry'", "can'ary"),
        (r"E'can''\ud83d\U0000de00é'", "can'😀é"),
        (r"e'can''\xc3\xa9\303\251\xg'", "can'ééxg"),
        (r"U&'can''\0061\+000072y'", "can'ary"),
        (r"u&'can''\\\d83d\+00de00'", "can'\\😀"),
        ("U&'can!0027!0061ry' -- '\n /* */ UESCAPE '!'", "can'ary"),
        ("U&'can''d0061ry' uescape 'd'", "can'ary"),
        // With standard_conforming_strings off.
        (r"'can\x27\141\u0072y'", "can'ary"),
        // Refused, or not the same in every version: all is masked.
        (r"E'can''\u61ry'", "can'ary"),
        (r"E'can''\ud83d\u0061'", "can'\u{fffd}a"),
        (r"U&'can''\61'", "can'a"),
        (r"E'can''\vary'", "can'\x0bary"),
    ] {
        let statement = format!("SELECT secret_put(p, 'N', {literal})");
        let text = format!("not {value}, please");
        let line = Line {
            format: b"%s",
            message: Some(text.as_bytes()),
            hint: Some(text.as_bytes()),
            detail: Some(text.as_bytes()),
            context: Some(text.as_bytes()),
            statement: Some(statement.as_bytes()),
            ..Line::default()
        };
        let known = line.mask();
        let of_server = Line { format: b"%s: %s", ..line }.mask();
        let parts = [known.message, known.hint, known.detail, known.context];
        for part in parts.into_iter().chain([of_server.message, of_server.hint, of_server.detail]) {
            let part = String::from_utf8(part.unwrap()).unwrap();
            assert!(part.starts_with("not ***") || part == "***", "{literal}: {part:?}");
        }
    }
    // Written with escapes, a value is what they mean, and only that. A path is none.
    for (literal, text, expected) in [
        (r"E'\x63an\141r\u0079'", "no canary today", "no *** today"),
        (r"U&'\0063anar\+000079'", "no canary today", "no *** today"),
        (r"'\u0063an', 'C:\users'", "no can today, C:\\users", "no can today, ***"),
        (r"E'caf\u00e9'", "no café today", "no *** today"),
    ] {
        let statement = format!("SELECT secret_put({literal})");
        let line = Line {
            format: b"%s",
            message: Some(text.as_bytes()),
            statement: Some(statement.as_bytes()),
            ..Line::default()
        };
        assert_eq!(message(line), expected, "{literal}");
    }
    // Nor where a line of CONTEXT ends that looks harmless.
    let line = Line {
        context: Some(b"PL/pgSQL function canary\nof two lines()"),
        statement: Some(b"SELECT 'canary\nof two lines'"),
        ..Line::default()
    };
    assert_eq!(line.mask().context.unwrap(), b"***");
}

/// Anybody can write a statement that takes long to look for, and only has to mention a function of ours. (Were the
/// steps not counted, this test would take many minutes.)
#[test]
fn where_looking_takes_too_long_all_is_masked() {
    let line = |statement: &str, text: &str, context: &str| {
        let line = Line {
            format: b"%s",
            message: Some(text.as_bytes()),
            hint: Some(text.as_bytes()),
            detail: Some(text.as_bytes()),
            context: Some(context.as_bytes()),
            statement: Some(statement.as_bytes()),
            ..Line::default()
        }
        .mask();
        [line.message, line.hint, line.detail, line.context]
            .map(|part| String::from_utf8(part.unwrap()).unwrap())
    };
    // Backwards from a quotation, step by step.
    let literals: String = (0..990).map(|n| format!(",'{}b{n:03}'", "a".repeat(3990))).collect();
    let backwards = format!("SELECT ARRAY['aaaa','aaa\"'{literals}] secret_put");
    let text = format!("not {}\"", "a".repeat(40_000));
    let frames = "PL/pgSQL function f(integer) line 1 at RETURN\n".repeat(700);
    assert_eq!(line(&backwards, &text, ""), ["***", "***", "***", ""]);
    // Line by line.
    assert_eq!(line(&backwards, "no", &frames), ["no", "no", "no", "***"]);
    // A short line, and few literals, are no work.
    assert_eq!(line("SELECT 'canary' secret_put", "no canary", &frames)[3], frames);
    // More literals than are looked for.
    let many: String = (0..2000).map(|n| format!(",'{n:07}'")).collect();
    let many = format!("SELECT ARRAY[NULL{many}] secret_put");
    assert_eq!(line(&many, "no 'x'", &frames), ["***", "***", "***", "***"]);
    // Quotes, of which each may end a literal that goes on behind the comment.
    let quotes = format!("SELECT 'a\\', {} secret_put", "\\'' --".repeat(300_000));
    assert_eq!(line(&quotes, "no", "")[0], "no");
}

#[test]
fn a_misquoted_value_is_masked_in_the_statement_too() {
    let statement = b"SELECT secret_put(p, 'N', canary), \"canary\"";
    let line = Line {
        position: 27,
        statement: Some(statement),
        ..error(b"42703", "column \"%s\" does not exist", "column \"canary\" does not exist")
    };
    let MaskedLine { statement, position, .. } = line.mask();
    assert_eq!(statement.unwrap(), b"SELECT secret_put(p, '***', ***), \"***\"");
    assert_eq!(position, 29);
}

#[test]
fn refusals_of_our_objects_are_recognised() {
    let within = |path: &str, format: &str, message: &str, statement: &str| {
        let [format, message, statement, path] =
            [format, message, statement, path].map(str::as_bytes);
        denial::refused(format, message, statement, path)
    };
    let refused =
        |format: &str, message: &str, statement: &str| within("public", format, message, statement);
    let function = "permission denied for function %s";
    let table = "permission denied for table %s";
    let schema = "permission denied for schema %s";
    let english = "permission denied for function secret_get";
    assert_eq!(refused(function, english, "SELECT 1"), Some("secret_get"));
    let german = "keine Berechtigung für Funktion secret_get_many";
    assert_eq!(refused(function, german, "SELECT 1"), Some("secret_get_many"));
    let versions = "permission denied for table secret_versions";
    assert_eq!(refused(table, versions, "TABLE x"), Some("secret_versions"));
    let ours = "permission denied for schema meshhook_secrets";
    let calls = "SELECT 'meshhook_secrets.seal', \"meshhook_secrets\" . \"secret_put\"('x')";
    assert_eq!(refused(schema, ours, calls), Some("secret_put"));
    assert_eq!(refused(schema, ours, "SELECT 1"), Some("meshhook_secrets"));
    // Others have settings too.
    let settings = "permission denied for table settings";
    assert_eq!(refused(table, settings, "TABLE settings"), None);
    for ours in ["TABLE meshhook_secrets.settings", "TABLE Meshhook_Secrets.Settings"] {
        assert_eq!(refused(table, settings, ours), Some("settings"));
    }
    let path = "\"$user\", Meshhook_Secrets";
    assert_eq!(within(path, table, settings, "TABLE settings"), Some("settings"));
    for name in ["audit_log", "audit_log_2026_11", "audit_keys", "data_keys", "health", "metrics"] {
        let text = format!("permission denied for table {name}");
        assert_eq!(refused(table, &text, "TABLE x"), None, "{name}");
        assert!(within(path, table, &text, "TABLE x").is_some(), "{name}");
    }
    for name in ["seal", "unseal", "doctor"] {
        let text = format!("permission denied for function {name}");
        assert_eq!(refused(function, &text, "EXECUTE p"), Some(name));
    }
    assert_eq!(refused(function, "permission denied for function f", "SELECT 1"), None);
    assert_eq!(refused("%s", "permission denied for function secret_get", "SELECT 1"), None);
}

#[test]
fn every_object_of_the_install_script_is_known() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../sql/install");
    let mut count = 0;
    for file in std::fs::read_dir(directory).unwrap().flatten() {
        let script = std::fs::read_to_string(file.path()).unwrap();
        for line in script.lines() {
            let object = ["FUNCTION", "TABLE", "TYPE", "VIEW", "SEQUENCE"]
                .iter()
                .find_map(|kind| line.strip_prefix(&format!("CREATE {kind} meshhook_secrets.")));
            let Some(object) = object else { continue };
            let end = object.find(|char: char| !char.is_alphanumeric() && char != '_');
            let name = &object[..end.unwrap_or(object.len())];
            let known = denial::FUNCTIONS.contains(&name)
                || denial::RELATIONS.contains(&name)
                || name.starts_with("audit_log_");
            assert!(known, "{name} is missing in redact/denial.rs");
            count += 1;
        }
    }
    assert!(count > 40, "{count} objects found");
}

// --- properties -----------------------------------------------------------------------------------

/// A piece of SQL, and whether the canary in it is a literal's.
fn piece() -> impl Strategy<Value = String> {
    // No quote characters but those the quoting doubles, and no backslash in front of them.
    let value = "[ a-z;$(){}é\n-]{0,6}canary[ a-z'\"*/;é\n-]{0,6}";
    prop_oneof![
        value.prop_map(|value| format!("'{}'", value.replace('\'', "''"))),
        value.prop_map(|value| format!("E'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))),
        value.prop_map(|value| format!("$q${value}$q$")),
        value.prop_map(|value| format!("E'a'\n'{}'", value.replace('\'', "\\'"))),
        Just("-- it's \"so\" $$\n".to_owned()),
        Just("/* ' /* \" */ $$ */".to_owned()),
        Just(" secret_put($1, \"project_id\") ".to_owned()),
        Just(" x - y ".to_owned()),
    ]
}

proptest! {
    #[test]
    fn no_literal_survives(pieces in proptest::collection::vec(piece(), 0..12), cut in 0..400_usize) {
        // Side by side with a space, as tokens must be.
        let statement = pieces.join(" ");
        let result = masked(&statement);
        prop_assert!(!result.contains("canary"), "{statement:?} became {result:?}");
        prop_assert_eq!(result.matches("project_id").count(), statement.matches("project_id").count());
        // Cut off anywhere.
        let end = (0..=cut.min(statement.len())).rev().find(|at| statement.is_char_boundary(*at));
        let result = masked(&statement[..end.unwrap_or(0)]);
        prop_assert!(!result.contains("canary"), "{result:?}");
    }

    #[test]
    fn tokens_cover_any_text(bytes: Vec<u8>) {
        let mut at = 0;
        for token in Tokens::of(&bytes) {
            prop_assert_eq!(token.whole.start, at);
            prop_assert!(token.whole.end > at && token.whole.end <= bytes.len());
            prop_assert!(token.body.start >= token.whole.start && token.body.end <= token.whole.end);
            prop_assert!(token.body.start <= token.body.end);
            at = token.whole.end;
        }
        prop_assert_eq!(at, bytes.len());
    }

    #[test]
    fn any_quotes_in_any_order_are_masked_without_panic(
        text in "[ a'\"$E\\\\\n/*(:=-]{0,60}", state in "[0-9A-Z]{5}", ran: bool
    ) {
        let bytes = Some(text.as_bytes());
        for format in ["%s", "statement: %s", "duration: %.3f ms  plan:\n%s", "AUDIT: %s", "x \"%s\""] {
            let line = Line {
                ran,
                state: state.as_bytes().try_into().unwrap(),
                format: format.as_bytes(),
                message: bytes,
                detail: bytes,
                detail_log: bytes,
                hint: bytes,
                context: bytes,
                internal_query: bytes,
                statement: bytes,
                position: text.len() / 2,
                ..Line::default()
            };
            let result = line.mask();
            prop_assert!(result.position <= text.len() * 4 + 1);
        }
        let strings = Tokens::of(text.as_bytes()).any(|token| {
            matches!(token.kind, Kind::String { .. }) && !token.body.is_empty()
        });
        prop_assert!(!strings || sql::has_strings(text.as_bytes()) || masked(&text).contains("***"));
    }
}

//! Definitions from introspection, rendered as `sentryops schema` prints them.

use std::fmt::Write;

use serde_json::Value;

pub(super) const QUERY: &str = "{ __schema {
    queryType { name } mutationType { name } subscriptionType { name }
    directives { name description locations args { ...I } }
    types {
        kind name description
        fields(includeDeprecated: true) { name description args { ...I } type { ...T } isDeprecated }
        inputFields { ...I } interfaces { name } possibleTypes { name }
        enumValues(includeDeprecated: true) { name description isDeprecated }
    }
} }
fragment I on __InputValue { name description defaultValue type { ...T } }
fragment T on __Type { kind name ofType { kind name ofType { kind name ofType { kind name ofType { kind name } } } } }";

fn name(value: &Value) -> &str {
    value["name"].as_str().unwrap_or_default()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn reference(of: &Value) -> String {
    match of["kind"].as_str().unwrap() {
        "NON_NULL" => format!("{}!", reference(&of["ofType"])),
        "LIST" => format!("[{}]", reference(&of["ofType"])),
        _ => name(of).to_owned(),
    }
}

fn description(of: &Value, indent: &str) -> String {
    let Some(text) = of["description"].as_str() else { return String::new() };
    let lines = text.lines().fold(String::new(), |all, line| {
        if line.is_empty() { all + "\n" } else { all + indent + line + "\n" }
    });
    format!("{indent}\"\"\"\n{lines}{indent}\"\"\"\n")
}

fn input(of: &Value) -> String {
    let default = of["defaultValue"].as_str().map(|value| format!(" = {value}"));
    format!("{}: {}{}", name(of), reference(&of["type"]), default.unwrap_or_default())
}

fn field(of: &Value) -> String {
    let mut text = description(of, "\t") + "\t" + name(of);
    let arguments: Vec<_> = list(&of["args"])
        .map(|one| format!("{}\t\t{}", description(one, "\t\t"), input(one)))
        .collect();
    if !arguments.is_empty() {
        let _ = write!(text, "(\n{}\n\t)", arguments.join(",\n"));
    }
    let _ = writeln!(text, ": {}", reference(&of["type"]));
    text
}

fn definition(of: &Value) -> Option<String> {
    let head = description(of, "");
    let names = |of: &Value, join: &str| list(of).map(name).collect::<Vec<_>>().join(join);
    let body = match of["kind"].as_str().unwrap() {
        "SCALAR" if ["Int", "Float", "String", "Boolean", "ID"].contains(&name(of)) => return None,
        "SCALAR" => format!("scalar {}", name(of)),
        "UNION" => format!("union {} = {}", name(of), names(&of["possibleTypes"], " | ")),
        "ENUM" => {
            let values = list(&of["enumValues"])
                .map(|one| format!("{}\t{}\n", description(one, "\t"), name(one)));
            format!("enum {} {{\n{}}}", name(of), values.collect::<String>())
        }
        "INPUT_OBJECT" => {
            let fields = list(&of["inputFields"])
                .map(|one| format!("{}\t{}\n", description(one, "\t"), input(one)));
            format!("input {} {{\n{}}}", name(of), fields.collect::<String>())
        }
        kind => {
            let implements = names(&of["interfaces"], " & ");
            let implements = if implements.is_empty() {
                String::new()
            } else {
                format!(" implements {implements}")
            };
            let keyword = if kind == "INTERFACE" { "interface" } else { "type" };
            let fields: String = list(&of["fields"]).map(field).collect();
            format!("{keyword} {}{implements} {{\n{fields}}}", name(of))
        }
    };
    Some(head + &body)
}

fn directive(of: &Value) -> String {
    let arguments: Vec<_> = list(&of["args"]).map(input).collect();
    let arguments =
        if arguments.is_empty() { String::new() } else { format!("({})", arguments.join(", ")) };
    let locations: Vec<_> = list(&of["locations"]).filter_map(Value::as_str).collect();
    format!(
        "{}directive @{}{arguments} on {}",
        description(of, ""),
        name(of),
        locations.join(" | ")
    )
}

/// Directives of the specification, which introspection and the printed schema list differently.
fn is_of_the_specification(definition: &str) -> bool {
    let names = ["skip", "include", "deprecated", "specifiedBy", "oneOf"];
    let is = |name: &&str| {
        definition.contains(&format!("directive @{name}("))
            || definition.contains(&format!("directive @{name} "))
    };
    names.iter().any(is)
}

/// Returns every definition that introspection serves, sorted.
pub(super) fn definitions(schema: &Value) -> Vec<String> {
    let types = list(&schema["types"]).filter(|of| !name(of).starts_with("__"));
    let mut all: Vec<_> = types.filter_map(definition).collect();
    all.extend(list(&schema["directives"]).map(directive));
    let roots: String = ["query", "mutation", "subscription"]
        .iter()
        .filter_map(|root| {
            let root_type = schema[format!("{root}Type")]["name"].as_str()?;
            Some(format!("\t{root}: {root_type}\n"))
        })
        .collect();
    all.push(format!("schema {{\n{roots}}}"));
    all.retain(|definition| !is_of_the_specification(definition));
    all.sort();
    all
}

/// Returns every definition of a printed schema, sorted, without the directives that introspection cannot serve.
pub(super) fn printed(sdl: &str) -> Vec<String> {
    let (mut all, mut current, mut in_description) = (Vec::new(), String::new(), false);
    for line in sdl.lines() {
        let is_mark = line.trim() == "\"\"\"";
        in_description ^= is_mark;
        if !in_description && !is_mark && line.is_empty() {
            continue;
        }
        let is_text = in_description || is_mark || line.starts_with("directive");
        let cut = if is_text { None } else { line.find(" @") };
        let brace = if cut.is_some() && line.ends_with('{') { " {" } else { "" };
        let _ = writeln!(current, "{}{brace}", &line[..cut.unwrap_or(line.len())]);
        let starts = |word: &str| line.starts_with(word);
        let is_whole = line == "}" || starts("union ") || starts("scalar ") || starts("directive ");
        if !in_description && is_whole {
            all.push(std::mem::take(&mut current).trim_end().to_owned());
        }
    }
    assert_eq!(current, "", "the end of the schema");
    all.retain(|definition| !is_of_the_specification(definition));
    all.sort();
    all
}

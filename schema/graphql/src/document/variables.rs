//! Whether the variables fit the types that the operation declares for them, before anything of it runs.
//!
//! async-graphql looks at a variable only when a resolver takes the argument: in a mutation with two root fields the
//! first would be committed by then. And of a time that is none it does not say where in an input object it stands.

use std::collections::HashMap;

use async_graphql::{
    Name, ScalarType, Value, Variables,
    parser::{
        parse_schema,
        types::{BaseType, OperationDefinition, Type, TypeKind, TypeSystemDefinition},
    },
};
use chrono::{DateTime, Utc};

use crate::document::error::DocumentError;

/// An input type.
enum Input {
    /// Its values.
    Enum(Vec<Name>),
    /// Its fields, and whether one may be left out.
    Object(HashMap<Name, (Type, bool)>),
}

/// The input types of a schema; what is not among them is a scalar.
pub(crate) struct InputTypes(HashMap<Name, Input>);

impl InputTypes {
    /// Reads them from the SDL, which has been read before.
    pub(crate) fn read(sdl: &str) -> Self {
        let definitions =
            parse_schema(sdl).map(|document| document.definitions).unwrap_or_default();
        let types = definitions.into_iter().filter_map(|definition| match definition {
            TypeSystemDefinition::Type(definition) => Some(definition.node),
            TypeSystemDefinition::Schema(_) | TypeSystemDefinition::Directive(_) => None,
        });
        let input_types = types.filter_map(|definition| {
            let input = match definition.kind {
                TypeKind::Enum(kind) => Input::Enum(
                    kind.values.into_iter().map(|value| value.node.value.node).collect(),
                ),
                TypeKind::InputObject(kind) => {
                    let field = |field: async_graphql::parser::types::InputValueDefinition| {
                        let optional = field.ty.node.nullable || field.default_value.is_some();
                        (field.name.node, (field.ty.node, optional))
                    };
                    Input::Object(kind.fields.into_iter().map(|each| field(each.node)).collect())
                }
                _ => return None,
            };
            Some((definition.name.node, input))
        });
        Self(input_types.collect())
    }

    /// Checks the variables of an operation.
    pub(crate) fn check(
        &self,
        operation: &OperationDefinition,
        variables: &Variables,
    ) -> Result<(), DocumentError> {
        for definition in &operation.variable_definitions {
            let (name, ty) = (&definition.node.name.node, &definition.node.var_type.node);
            let refuse = |what: String| {
                DocumentError::invalid(definition.pos, format!("the variable ${name}{what}"))
            };
            match variables.get(name) {
                None if ty.nullable || definition.node.default_value.is_some() => {}
                None => return Err(refuse(format!(" is required: its type is {ty}"))),
                Some(value) => self.fits(value, ty, String::new()).map_err(refuse)?,
            }
        }
        Ok(())
    }

    /// Whether a value fits a type, or where and why not.
    fn fits(&self, value: &Value, ty: &Type, path: String) -> Result<(), String> {
        if *value == Value::Null {
            return if ty.nullable {
                Ok(())
            } else {
                Err(format!("{path} must not be null: its type is {ty}"))
            };
        }
        let name = match (&ty.base, value) {
            (BaseType::List(item), Value::List(values)) => {
                for (index, value) in values.iter().enumerate() {
                    self.fits(value, item, format!("{path}.{index}"))?;
                }
                return Ok(());
            }
            // A single value stands for a list of one.
            (BaseType::List(item), value) => return self.fits(value, item, path),
            (BaseType::Named(name), _) => name,
        };
        match (self.0.get(name), value) {
            (Some(Input::Enum(values)), Value::String(text))
                if values.iter().any(|value| value == text) =>
            {
                Ok(())
            }
            (Some(Input::Enum(values)), Value::Enum(operation)) if values.contains(operation) => {
                Ok(())
            }
            (Some(Input::Enum(values)), _) => {
                let values: Vec<_> = values.iter().map(Name::as_str).collect();
                Err(format!("{path} is not a value of {name}: there are {}", values.join(", ")))
            }
            (Some(Input::Object(fields)), Value::Object(given)) => {
                if let Some(unknown) = given.keys().find(|key| !fields.contains_key(*key)) {
                    return Err(format!("{path}.{unknown} is not a field of {name}"));
                }
                for (field, (ty, optional)) in fields {
                    match given.get(field) {
                        Some(value) => self.fits(value, ty, format!("{path}.{field}"))?,
                        None if *optional => {}
                        None => {
                            return Err(format!("{path}.{field} is required: its type is {ty}"));
                        }
                    }
                }
                Ok(())
            }
            (Some(Input::Object(_)), _) => {
                Err(format!("{path} must be an object of the type {name}"))
            }
            (None, value) if may_be(name, value) => Ok(()),
            (None, _) if name == "DateTime" => {
                Err(format!("{path} is no DateTime: one is written as \"2027-03-31T00:00:00Z\""))
            }
            (None, _) => Err(format!("{path} does not fit the type {name}")),
        }
    }
}

/// Whether a value may be one of the scalar; those that are not named here judge for themselves.
fn may_be(name: &str, value: &Value) -> bool {
    match name {
        "String" => matches!(value, Value::String(_)),
        "Boolean" => matches!(value, Value::Boolean(_)),
        "ID" => matches!(value, Value::String(_) | Value::Number(_)),
        "Int" => {
            matches!(value, Value::Number(number) if number.as_i64().is_some_and(|int| i32::try_from(int).is_ok()))
        }
        "Float" => matches!(value, Value::Number(_)),
        "DateTime" => <DateTime<Utc> as ScalarType>::parse(value.clone()).is_ok(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::{parse_query, types::DocumentOperations};

    use super::*;

    const SDL: &str = "type Query { a: Int } enum E { X Y } scalar JSON
        input I { name: String! kind: E! = X tags: [ID!] more: JSON }";

    fn checked(declared: &str, variables: serde_json::Value) -> Result<(), String> {
        let document = parse_query(format!("query({declared}) {{ a }}")).unwrap();
        let DocumentOperations::Single(operation) = document.operations else {
            panic!("one operation")
        };
        let variables = Variables::from_json(variables);
        InputTypes::read(SDL).check(&operation.node, &variables).map_err(|refusal| refusal.message)
    }

    #[test]
    fn what_fits_is_let_through() {
        for (declared, variables) in [
            ("$i: I!", r#"{"i": {"name": "n"}}"#),
            ("$i: I!", r#"{"i": {"name": "n", "kind": "Y", "tags": ["t"], "more": {"x": [1]}}}"#),
            ("$i: [I!]!", r#"{"i": {"name": "n"}}"#),
            ("$i: I", "{}"),
            ("$n: Int = 3, $s: String", r#"{"s": null}"#),
        ] {
            assert_eq!(
                checked(declared, serde_json::from_str(variables).unwrap()),
                Ok(()),
                "{variables}"
            );
        }
    }

    #[test]
    fn what_does_not_fit_is_named_with_its_place() {
        for (declared, variables, message) in [
            ("$i: I!", "{}", "the variable $i is required: its type is I!"),
            ("$i: I!", r#"{"i": null}"#, "the variable $i must not be null: its type is I!"),
            ("$i: I!", r#"{"i": 1}"#, "the variable $i must be an object of the type I"),
            ("$i: I!", r#"{"i": {}}"#, "the variable $i.name is required: its type is String!"),
            (
                "$i: I!",
                r#"{"i": {"name": 1}}"#,
                "the variable $i.name does not fit the type String",
            ),
            ("$i: I!", r#"{"i": {"name": "n", "x": 1}}"#, "the variable $i.x is not a field of I"),
            (
                "$i: I!",
                r#"{"i": {"name": "n", "kind": "Z"}}"#,
                "the variable $i.kind is not a value of E: there are X, Y",
            ),
            (
                "$i: I!",
                r#"{"i": {"name": "n", "tags": ["t", null]}}"#,
                "the variable $i.tags.1 must not be null: its type is ID!",
            ),
            ("$n: Int", r#"{"n": 1.5}"#, "the variable $n does not fit the type Int"),
            (
                "$t: [DateTime!]",
                r#"{"t": ["2027-03-31T00:00:00Z", "tomorrow"]}"#,
                "the variable $t.1 is no DateTime: one is written as \"2027-03-31T00:00:00Z\"",
            ),
        ] {
            let refusal = checked(declared, serde_json::from_str(variables).unwrap());
            assert_eq!(refusal.unwrap_err(), message, "{variables}");
        }
    }
}

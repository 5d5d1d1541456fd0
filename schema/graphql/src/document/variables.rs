//! Checks, before any field runs, that the variables match the types that the operation declares.
//!
//! async-graphql checks a variable only when a resolver reads the argument. In a mutation with two root fields, the
//! first field would be committed before the second field's variables are checked. async-graphql also does not report
//! the path of an invalid `DateTime` in an input object.

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

/// Definition of an input type.
enum Input {
    /// An enum with its values.
    Enum(Vec<Name>),
    /// An input object: the type of each field, and whether the field may be omitted.
    Object(HashMap<Name, (Type, bool)>),
}

/// Input objects and enums of a schema, by name. Every other name is a scalar.
pub(crate) struct InputTypes(HashMap<Name, Input>);

impl InputTypes {
    /// Reads the input types from a valid SDL.
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

    /// Checks that the variables match the types that the operation declares.
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

    /// Checks that a value fits a type. The error contains the path within the variable, and the reason.
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
            // The specification coerces a single value to a list of one.
            (BaseType::List(item), value) => return self.fits(value, item, path),
            (BaseType::Named(name), _) => name,
        };
        match (self.0.get(name), value) {
            (Some(Input::Enum(values)), Value::String(text))
                if values.iter().any(|value| value == text) =>
            {
                Ok(())
            }
            (Some(Input::Enum(values)), Value::Enum(value)) if values.contains(value) => Ok(()),
            (Some(Input::Enum(values)), _) => {
                let values: Vec<_> = values.iter().map(Name::as_str).collect();
                Err(format!("{path} is not a value of {name}: use one of {}", values.join(", ")))
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
            (None, value) if fits_scalar(name, value) => Ok(()),
            (None, _) if name == "DateTime" => {
                Err(format!("{path} is not a DateTime: write it as \"2027-03-31T00:00:00Z\""))
            }
            (None, _) => Err(format!("{path} does not fit the type {name}")),
        }
    }
}

/// Returns true if a value fits the scalar. Other scalars than these return true, because their resolvers validate the
/// value.
fn fits_scalar(name: &str, value: &Value) -> bool {
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
        InputTypes::read(SDL).check(&operation.node, &variables).map_err(|error| error.message)
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
                "the variable $i.kind is not a value of E: use one of X, Y",
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
                "the variable $t.1 is not a DateTime: write it as \"2027-03-31T00:00:00Z\"",
            ),
        ] {
            let error = checked(declared, serde_json::from_str(variables).unwrap());
            assert_eq!(error.unwrap_err(), message, "{variables}");
        }
    }
}

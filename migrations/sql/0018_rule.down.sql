DROP TABLE rule_version;
DROP TABLE rule;

DROP TABLE compliance_run;

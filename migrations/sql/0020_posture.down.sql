DROP TABLE posture_due;
DROP TABLE posture;

DROP POLICY user_app ON "user";
DROP TABLE membership_role;
DROP TABLE membership;
DROP TABLE role;
DROP TABLE "user";
DROP FUNCTION membership_is_owner(uuid, uuid);
DROP FUNCTION membership_role_is_owner(uuid, uuid);
DROP FUNCTION membership_keeps_owner();

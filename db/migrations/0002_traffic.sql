-- How traffic to a sandbox is treated: 1 and 0 are yes and no. The token guards its guest agent, and its ports
-- unless they are public.
ALTER TABLE sandboxes ADD COLUMN auto_resume BIGINT NOT NULL DEFAULT 0;
ALTER TABLE sandboxes ADD COLUMN public_traffic BIGINT NOT NULL DEFAULT 1;
ALTER TABLE sandboxes ADD COLUMN access_token TEXT NOT NULL DEFAULT '';

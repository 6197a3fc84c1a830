import type { SupabaseClient } from '@supabase/supabase-js';
import type { Session, User } from '$lib/api-types';
import type { Database } from '$lib/server/database';

declare global {
	namespace App {
		interface Locals {
			/** Acts as the one who is signed in. */
			supabase: SupabaseClient<Database>;
			/** Verified; null if nobody is signed in. */
			user: User | null;
			/** Ends up in the audit log. */
			requestId: string;
			/** Changes of the session, as headers: SvelteKit sends them along with what its routes answer only. */
			setCookies: string[];
		}
		interface PageData extends Session {}
		interface Error {
			message: string;
			/** The request's id, to find it in the log. */
			id?: string;
		}
	}
}

export {};

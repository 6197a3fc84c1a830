import type { MeshhookSecrets, Uuid } from '$lib/api-types';

/** The application's own tables, as far as the pages need them. */
interface Application {
	public: {
		Tables: {
			projects: {
				Row: { id: Uuid; owner: Uuid; name: string };
				Insert: { id?: Uuid; owner?: Uuid; name: string };
				Update: { name?: string };
				Relationships: [];
			};
		};
		Views: { [_ in never]: never };
		Enums: { [_ in never]: never };
		CompositeTypes: { [_ in never]: never };
		Functions: { [_ in never]: never };
	};
}

export type Database = Application & MeshhookSecrets;

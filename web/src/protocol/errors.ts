/** A refusal or failure that the server told, or that the page found. code: stable, as the server writes it. */
export class Refusal extends Error {
  readonly code: string;
  readonly status: number;
  readonly retry: number; // seconds; 0: not said

  constructor(message: string, code: string, status = 0, retry = 0) {
    super(message);
    this.code = code;
    this.status = status;
    this.retry = retry;
  }
}

export interface ErrorBody {
  message?: string;
  code?: string | null;
}

export function refusalOf(body: ErrorBody | undefined, status = 0, retry = 0): Refusal {
  return new Refusal(body?.message ?? `HTTP ${status}`, body?.code ?? "unknown", status, retry);
}

/** The refusal that a response is. */
export async function refusalIn(response: Response): Promise<Refusal> {
  const retry = Number(response.headers.get("retry-after") ?? 0);
  try {
    const body = (await response.json()) as { error?: ErrorBody };
    return refusalOf(body.error, response.status, retry);
  } catch {
    return refusalOf(undefined, response.status, retry);
  }
}

using System.Net;
using System.Net.Http.Headers;
using System.Text.Json;

namespace NopeGpt.Data.Documents.Hub;

/// <summary>Speaks the Hub's HTTP interface (huggingface.co/docs/hub/api): asks again with growing waits where a failure may pass, and says
/// in one sentence what is wrong where it will not.</summary>
public sealed class HubClient : IDisposable
{
    private const int MaximumRedirects = 10, MaximumJsonBytes = 256 << 20;
    private readonly HttpClient _http;

    public HubClient(HubOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        Options = options;
        // Redirects are followed here, because the token must not go with them. Time is kept per request, not over a whole download.
        _http = new(new SocketsHttpHandler { AllowAutoRedirect = false, AutomaticDecompression = DecompressionMethods.None, PooledConnectionLifetime = TimeSpan.FromMinutes(10) })
        {
            Timeout = System.Threading.Timeout.InfiniteTimeSpan,
        };
        _http.DefaultRequestHeaders.UserAgent.Add(new ProductInfoHeaderValue("nopegpt", typeof(HubClient).Assembly.GetName().Version?.ToString(3) ?? "0"));
    }

    public HubOptions Options { get; }

    public void Dispose() => _http.Dispose();

    /// <summary>An address below the endpoint.</summary>
    internal Uri Address(string path) => new(Options.Endpoint.AbsoluteUri.TrimEnd('/') + path);

    /// <summary>A JSON document, and where its next page is.</summary>
    internal Task<(JsonDocument Json, Uri? Next)> GetJsonAsync(Uri address, string what, CancellationToken cancel, int? attempts = null) => RetryAsync(what, async () =>
    {
        using HttpResponseMessage response = await GetAsync(address, what, 0, cancel).ConfigureAwait(false);
        using MemoryStream body = new();
        await CopyAsync(response, (bytes, _) =>
        {
            if (body.Length + bytes.Length > MaximumJsonBytes) throw new HubException($"{what}: the answer is longer than {MaximumJsonBytes} bytes; check the Hub's address {Options.Endpoint}");
            body.Write(bytes.Span);
            return ValueTask.CompletedTask;
        }, cancel).ConfigureAwait(false);
        try
        {
            return (JsonDocument.Parse(body.GetBuffer().AsMemory(0, (int)body.Length)), NextPage(response));
        }
        catch (JsonException error)
        {
            // A proxy's page, or an answer that broke off.
            throw new PassingFailure($"the answer is not JSON ({error.Message.Split(". ")[0]})", error);
        }
    }, cancel, attempts);

    /// <summary>Runs a step until it succeeds or fails for good.</summary>
    /// <param name="attempts">how often at most; null for the usual number</param>
    /// <exception cref="HubException">It failed for good, or too often; in the second case a <see cref="PassingFailure"/> is inside.</exception>
    internal async Task<T> RetryAsync<T>(string what, Func<Task<T>> step, CancellationToken cancel, int? attempts = null)
    {
        int most = Math.Min(attempts ?? Options.Attempts, Options.Attempts);
        for (int attempt = 1; ; attempt++)
        {
            try
            {
                return await step().ConfigureAwait(false);
            }
            catch (PassingFailure failure)
            {
                if (failure.Progressed) attempt = 1;
                if (attempt >= most) throw new HubException($"{what}: {failure.Message}, also at attempt {attempt}; check the network, or set HF_ENDPOINT to a mirror.", failure);
                TimeSpan wait = failure.Wait ?? Backoff(attempt);
                if (wait > Options.LongestWait) throw new HubException($"{what}: {failure.Message}; the server asks to wait for {wait.TotalMinutes:0} minutes: try again later, or set HF_TOKEN, which has higher limits.", failure);
                await Task.Delay(wait, Options.Time, cancel).ConfigureAwait(false);
            }
        }
    }

    /// <summary>Asks for an address, or for its bytes from a place on, and follows redirects.</summary>
    /// <returns>A successful answer whose body is not read yet.</returns>
    /// <exception cref="PassingFailure">It may succeed later.</exception>
    internal async Task<HttpResponseMessage> GetAsync(Uri address, string what, long from, CancellationToken cancel, Action<HttpResponseMessage>? onRedirect = null)
    {
        for (int redirects = 0; redirects <= MaximumRedirects; redirects++)
        {
            HttpResponseMessage response = await SendAsync(address, from, cancel).ConfigureAwait(false);
            if (response.IsSuccessStatusCode) return response;
            using (response)
            {
                if (response.StatusCode is not (HttpStatusCode.MovedPermanently or HttpStatusCode.Found or HttpStatusCode.SeeOther or HttpStatusCode.TemporaryRedirect or HttpStatusCode.PermanentRedirect))
                    throw Failure(response, what);
                Uri target = response.Headers.Location is { } location ? new(address, location) : throw new PassingFailure("the server redirects to nowhere");
                if (target.Scheme is not ("http" or "https") || (address.Scheme == "https" && target.Scheme == "http"))
                    throw new HubException($"{what}: {address.Host} redirects to {target}, which is not secure; check the Hub's address {Options.Endpoint}.");
                onRedirect?.Invoke(response);
                address = target;
            }
        }
        throw new HubException($"{what}: the server redirects in a circle; check the Hub's address {Options.Endpoint}.");
    }

    /// <summary>Hands over the body piece by piece.</summary>
    /// <exception cref="PassingFailure">It broke off, or nothing came for too long.</exception>
    internal async Task CopyAsync(HttpResponseMessage response, Func<ReadOnlyMemory<byte>, CancellationToken, ValueTask> take, CancellationToken cancel)
    {
        byte[] buffer = new byte[1 << 17];
        using CancellationTokenSource stall = new(Options.Timeout, Options.Time);
        using CancellationTokenSource either = CancellationTokenSource.CreateLinkedTokenSource(cancel, stall.Token);
        Stream? body = null;
        try
        {
            while (true)
            {
                int read;
                try
                {
                    body ??= await response.Content.ReadAsStreamAsync(either.Token).ConfigureAwait(false);
                    read = await body.ReadAsync(buffer, either.Token).ConfigureAwait(false);
                }
                catch (Exception broken) when (broken is IOException or HttpRequestException || (broken is OperationCanceledException && !cancel.IsCancellationRequested))
                {
                    throw new PassingFailure(broken is OperationCanceledException ? $"no data came for {Options.Timeout.TotalSeconds:0} s" : "the connection broke off", broken);
                }
                if (read == 0) return;
                stall.CancelAfter(Options.Timeout);
                await take(buffer.AsMemory(0, read), cancel).ConfigureAwait(false);
            }
        }
        finally
        {
            if (body is not null) await body.DisposeAsync().ConfigureAwait(false);
        }
    }

    private async Task<HttpResponseMessage> SendAsync(Uri address, long from, CancellationToken cancel)
    {
        using HttpRequestMessage request = new(HttpMethod.Get, address);
        request.Headers.AcceptEncoding.Add(new("identity"));
        if (from > 0) request.Headers.Range = new(from, null);
        if (Options.Token is not null && IsEndpoint(address)) request.Headers.Authorization = new("Bearer", Options.Token);
        using CancellationTokenSource late = new(Options.Timeout, Options.Time);
        using CancellationTokenSource either = CancellationTokenSource.CreateLinkedTokenSource(cancel, late.Token);
        try
        {
            return await _http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, either.Token).ConfigureAwait(false);
        }
        catch (OperationCanceledException slow) when (!cancel.IsCancellationRequested)
        {
            throw new PassingFailure($"{address.Host} does not answer within {Options.Timeout.TotalSeconds:0} s", slow, unreached: true);
        }
        catch (Exception broken) when (broken is HttpRequestException or IOException)
        {
            throw new PassingFailure($"{address.Host} cannot be reached ({(broken.InnerException ?? broken).Message.TrimEnd('.')})", broken, unreached: true);
        }
    }

    private bool IsEndpoint(Uri address) => address.Scheme == Options.Endpoint.Scheme && address.Host == Options.Endpoint.Host && address.Port == Options.Endpoint.Port;

    private Exception Failure(HttpResponseMessage response, string what)
    {
        int status = (int)response.StatusCode;
        if (status is 408 or 425 or 429 or >= 500)
            return new PassingFailure(status == 429 ? "the server asks for fewer requests (429)" : $"the server answers {status}", wait: Asked(response));
        if (status == 416) return new PassingFailure("the server does not have the rest of the file (416)", badRange: true);
        // The Hub names the reason in this header, as it gives 401 for whatever a stranger may not see.
        string code = response.Headers.TryGetValues("X-Error-Code", out IEnumerable<string>? codes) ? codes.First() : "";
        string reason = (code, status) switch
        {
            ("GatedRepo", _) => "the data set is gated: accept its conditions on its page and set HF_TOKEN to a token of that account",
            ("RevisionNotFound", _) => "there is no such revision: check its name",
            ("EntryNotFound", _) => "there is no such file in that revision: check its name",
            (_, 401) when Options.Token is not null => "the Hub does not accept the token in HF_TOKEN, or the name is mistyped: make a new token, and check the name",
            (_, 401) => "there is no such data set, or it is private or gated: check the name, or set HF_TOKEN",
            (_, 403) => "access is refused: accept the data set's conditions on its page and set HF_TOKEN to a token that may read it",
            (_, 404) => "there is no such data set, revision or file: check the name",
            _ => $"the server answers {status}: check the name and the Hub's address {Options.Endpoint}",
        };
        return new HubException($"{what}: {reason} ({status}).");
    }

    private TimeSpan? Asked(HttpResponseMessage response)
    {
        TimeSpan? wait = response.Headers.RetryAfter is not { } after ? null : after.Delta ?? (after.Date - Options.Time.GetUtcNow());
        return wait is { } w ? TimeSpan.FromTicks(Math.Max(0, w.Ticks)) : null;
    }

    /// <summary>Doubles with each attempt; spread at random, so that many clients do not come back together.</summary>
    private TimeSpan Backoff(int attempt)
    {
        TimeSpan full = Options.FirstWait * Math.Pow(2, Math.Min(attempt - 1, 30)) * (0.5 + Random.Shared.NextDouble());
        return full < Options.LongestWait ? full : Options.LongestWait;
    }

    /// <summary>The address in a header such as Link: &lt;address&gt;; rel="next" (RFC 8288). A mirror may hand on the Hub's own; it is asked itself.</summary>
    private Uri? NextPage(HttpResponseMessage response)
    {
        if (!response.Headers.TryGetValues("Link", out IEnumerable<string>? links)) return null;
        foreach (string link in links.SelectMany(l => l.Split(',')))
        {
            int open = link.IndexOf('<', StringComparison.Ordinal), close = link.IndexOf('>', StringComparison.Ordinal);
            if (open < 0 || close < open || !link[close..].Contains("rel=\"next\"", StringComparison.OrdinalIgnoreCase)) continue;
            if (!Uri.TryCreate(Options.Endpoint, link[(open + 1)..close], out Uri? next)) return null;
            return IsEndpoint(next) ? next : Address(next.PathAndQuery);
        }
        return null;
    }
}

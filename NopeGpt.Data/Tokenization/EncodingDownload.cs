using System.Net;
using System.Security.Cryptography;

namespace NopeGpt.Data.Tokenization;

/// <summary>Fetches the file of a published encoding once, checks its SHA-256 and keeps it in a folder. Any number of processes may do so at once: the file
/// appears under its name only when it is whole, and all of them would put the same there.</summary>
/// <param name="folder">Where the files are kept; made when one is.</param>
public sealed class EncodingDownload(string folder)
{
    /// <summary>Where OpenAI publishes them.</summary>
    public const string Published = "https://openaipublic.blob.core.windows.net/encodings/";

    private static readonly TimeSpan _longestWait = TimeSpan.FromSeconds(30);
    private static readonly HttpClient _client = new(new SocketsHttpHandler { PooledConnectionLifetime = TimeSpan.FromMinutes(5) }) { Timeout = Timeout.InfiniteTimeSpan };

    /// <summary>The files kept.</summary>
    public string Folder => folder;

    /// <summary>The folder at which the files are found as NAME.tiktoken: the published one, or a mirror of it.</summary>
    public Uri Address { get; init; } = new(Published);

    /// <summary>How often it is tried. Only what may pass is tried again: no connection, an answer of 408, 429 or 5xx, a body that is not whole or has
    /// another SHA-256.</summary>
    public int Attempts { get; init; } = 4;

    /// <summary>The wait before the second attempt; it doubles with each further one. Retry-After of the answer counts where it is longer, up to 30 s.</summary>
    public TimeSpan FirstWait { get; init; } = TimeSpan.FromMilliseconds(500);

    /// <summary>For one attempt.</summary>
    public TimeSpan Limit { get; init; } = TimeSpan.FromMinutes(2);

    /// <summary>The file of the encoding of that name, from the folder or else from its address.</summary>
    /// <exception cref="ArgumentException">There is no such encoding.</exception>
    /// <exception cref="IOException">It could not be fetched, or not be kept; one sentence with address and reason.</exception>
    public async Task<string> GetAsync(string name, CancellationToken cancel = default)
    {
        PublishedEncoding encoding = PublishedEncoding.Find(name) ?? throw new ArgumentException($"There is no published encoding {name}; known are {PublishedEncoding.Names}.", nameof(name));
        string path = Path.Combine(folder, encoding.FileName);
        if (encoding.TryRead(path) is not null) return path;
        Uri address = new(new Uri(Address.AbsoluteUri.TrimEnd('/') + "/"), encoding.FileName);
        TimeSpan wait = FirstWait;
        for (int attempt = 1; ; attempt++)
        {
            (byte[]? content, Failure failure) = await TryAsync(address, encoding, cancel);
            if (content is not null)
            {
                Keep(path, content);
                return path;
            }
            if (!failure.MayPass || attempt >= Attempts) throw new IOException($"{address} could not be downloaded{(attempt > 1 ? $" in {attempt} attempts" : "")}: {failure.Reason.TrimEnd('.')}");
            await Task.Delay(failure.After > wait ? failure.After : wait, cancel);
            wait *= 2;
        }
    }

    private async Task<(byte[]? Content, Failure Failure)> TryAsync(Uri address, PublishedEncoding encoding, CancellationToken cancel)
    {
        using CancellationTokenSource limit = CancellationTokenSource.CreateLinkedTokenSource(cancel);
        limit.CancelAfter(Limit);
        try
        {
            using HttpResponseMessage response = await _client.GetAsync(address, HttpCompletionOption.ResponseHeadersRead, limit.Token);
            if (!response.IsSuccessStatusCode)
            {
                bool mayPass = response.StatusCode is HttpStatusCode.RequestTimeout or HttpStatusCode.TooManyRequests or >= HttpStatusCode.InternalServerError;
                return (null, new($"the server answers {(int)response.StatusCode} {response.ReasonPhrase}", mayPass) { After = Wait(response) });
            }
            await using Stream body = await response.Content.ReadAsStreamAsync(limit.Token);
            byte[] content = new byte[encoding.Bytes + 1];
            int length = await body.ReadAtLeastAsync(content, content.Length, throwOnEndOfStream: false, limit.Token);
            if (length > encoding.Bytes) return (null, new($"what the server sends is longer than the {encoding.Bytes} bytes of {encoding.FileName}", MayPass: false));
            Array.Resize(ref content, length);
            return encoding.Is(content) ? (content, default)
                : (null, new($"what the server sends ({length} bytes, SHA-256 {Convert.ToHexStringLower(SHA256.HashData(content))}) is not {encoding.FileName} ({encoding.Bytes} bytes, SHA-256 {encoding.Sha256})", MayPass: true));
        }
        catch (OperationCanceledException) when (!cancel.IsCancellationRequested) { return (null, new($"there was no whole answer within {Limit.TotalSeconds:0} s", MayPass: true)); }
        catch (Exception e) when (e is HttpRequestException or IOException) { return (null, new(e.Message, MayPass: true)); }
    }

    private static TimeSpan Wait(HttpResponseMessage response)
    {
        TimeSpan after = response.Headers.RetryAfter switch { { Delta: { } delta } => delta, { Date: { } date } => date - DateTimeOffset.UtcNow, _ => TimeSpan.Zero };
        return after < _longestWait ? after : _longestWait;
    }

    private static void Keep(string path, byte[] content)
    {
        try
        {
            using AsideFile aside = new(path);
            aside.Stream.Write(content);
            aside.Complete();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException) { throw new IOException($"{path} could not be written: {e.Message.TrimEnd('.')}", e); }
    }

    private readonly record struct Failure(string Reason, bool MayPass)
    {
        /// <summary>The server asks to wait so long.</summary>
        public TimeSpan After { get; init; }
    }
}

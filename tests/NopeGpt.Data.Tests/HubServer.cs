using System.Collections.Concurrent;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using NopeGpt.Data.Documents.Hub;

namespace NopeGpt.Data.Tests;

/// <summary>What the server does with the next download, in place of sending it.</summary>
/// <param name="Pace">Sends so many bytes at a time, some dozen times a second.</param>
internal sealed record HubFault(int Status = 0, int? RetryAfter = null, int? TruncateAfter = null, bool Corrupt = false, bool IgnoreRange = false, bool Stall = false, bool WrongRange = false, int? Pace = null);

/// <summary>A server on this machine that speaks the Hub's interface, and a second one that files are sent from.</summary>
internal sealed class HubServer : IDisposable
{
    private readonly HttpListener _hub, _files;
    private readonly Dictionary<string, Published> _datasets = [];
    private readonly CancellationTokenSource _stop = new();

    public HubServer()
    {
        (_hub, Endpoint) = Listen();
        (_files, FilesEndpoint) = Listen();
        _ = ServeAsync(_hub, AnswerHub);
        _ = ServeAsync(_files, AnswerFile);
    }

    public Uri Endpoint { get; }

    public Uri FilesEndpoint { get; }

    /// <summary>Every request: address, Authorization, Range.</summary>
    public ConcurrentQueue<(string Path, string? Token, string? Range)> Requests { get; } = new();

    /// <summary>Faults of the next downloads, and of the next answers of the interface.</summary>
    public ConcurrentQueue<HubFault> FileFaults { get; } = new();

    public ConcurrentQueue<HubFault> HubFaults { get; } = new();

    public string? RequiredToken { get; set; }

    /// <summary>A file that is refused, however often it is asked for.</summary>
    public byte[]? Forbidden { get; set; }

    public int PageSize { get; set; } = 1000;

    public HubOptions Options(string cache) => new() { Endpoint = Endpoint, CacheFolder = cache, FirstWait = TimeSpan.FromMilliseconds(1), Attempts = 5, Timeout = TimeSpan.FromSeconds(20) };

    /// <summary>Puts a data set there; its commit follows from its files.</summary>
    public string Publish(string name, IReadOnlyDictionary<string, byte[]> files, object? card = null, string revision = "main")
    {
        string commit = Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(name + revision + string.Join('|', files.Select(f => f.Key + Convert.ToHexString(SHA256.HashData(f.Value)))))))[..40];
        if (!_datasets.TryGetValue(name, out Published? published)) _datasets[name] = published = new();
        published.Revisions[revision] = published.Revisions[commit] = commit;
        published.Commits[commit] = (files, card ?? new { });
        return commit;
    }

#pragma warning disable CA5350 // Git's hash is SHA-1.
    public static string GitHash(byte[] data) => Convert.ToHexStringLower(SHA1.HashData([.. Encoding.ASCII.GetBytes($"blob {data.Length}\0"), .. data]));
#pragma warning restore CA5350

    public static string Sha256(byte[] data) => Convert.ToHexStringLower(SHA256.HashData(data));

    public void Dispose()
    {
        _stop.Cancel();
        _hub.Close();
        _files.Close();
        _stop.Dispose();
    }

    private static (HttpListener, Uri) Listen()
    {
        for (int attempt = 0; ; attempt++)
        {
            using TcpListener free = new(IPAddress.Loopback, 0);
            free.Start();
            int port = ((IPEndPoint)free.LocalEndpoint).Port;
            free.Stop();
            HttpListener listener = new();
            listener.Prefixes.Add($"http://127.0.0.1:{port}/");
            try
            {
                listener.Start();
                return (listener, new($"http://127.0.0.1:{port}"));
            }
            catch (HttpListenerException) when (attempt < 5)
            {
                listener.Close();
            }
        }
    }

    private async Task ServeAsync(HttpListener listener, Action<HttpListenerContext> answer)
    {
        while (!_stop.IsCancellationRequested)
        {
            HttpListenerContext context;
            try { context = await listener.GetContextAsync(); }
            catch (Exception e) when (e is HttpListenerException or ObjectDisposedException) { return; }
            Requests.Enqueue((context.Request.RawUrl!, context.Request.Headers["Authorization"], context.Request.Headers["Range"]));
            _ = Task.Run(() =>
            {
                try { answer(context); }
                catch (Exception e) when (e is HttpListenerException or IOException or ObjectDisposedException) { /* the client went away */ }
            });
        }
    }

    private void AnswerHub(HttpListenerContext context)
    {
        if (HubFaults.TryDequeue(out HubFault? fault) && fault.Status != 0)
        {
            Fail(context, fault);
            return;
        }
        if (RequiredToken is not null && context.Request.Headers["Authorization"] != $"Bearer {RequiredToken}")
        {
            Fail(context, new(401), "GatedRepo");
            return;
        }
        string[] parts = [.. context.Request.RawUrl!.Split('?')[0].Split('/', StringSplitOptions.RemoveEmptyEntries).Select(Uri.UnescapeDataString)];
        int at = Array.IndexOf(parts, "datasets");
        Published? dataset = parts.Length >= at + 5 ? _datasets.GetValueOrDefault($"{parts[at + 1]}/{parts[at + 2]}") : null;
        if (dataset is null) Fail(context, new(401), "RepoNotFound");
        else if (!dataset.Revisions.TryGetValue(parts[at + 4], out string? commit)) Fail(context, new(404), "RevisionNotFound");
        else if (parts[at + 3] == "revision") Json(context, new { id = $"{parts[at + 1]}/{parts[at + 2]}", sha = commit, cardData = dataset.Commits[commit].Card });
        else if (parts[at + 3] == "tree") Tree(context, dataset.Commits[commit].Files, string.Join('/', parts[(at + 5)..]));
        else Redirect(context, dataset.Commits[commit].Files, string.Join('/', parts[(at + 5)..]), commit);
    }

    private void Tree(HttpListenerContext context, IReadOnlyDictionary<string, byte[]> files, string folder)
    {
        object[] entries = [.. files.Where(f => folder.Length == 0 || f.Key.StartsWith(folder + "/", StringComparison.Ordinal)).Select(f => IsLarge(f.Key)
            ? (object)new { type = "file", path = f.Key, size = f.Value.Length, oid = GitHash([1]), lfs = new { oid = Sha256(f.Value), size = f.Value.Length, pointerSize = 134 } }
            : new { type = "file", path = f.Key, size = f.Value.Length, oid = GitHash(f.Value) })];
        if (folder.Length > 0 && entries.Length == 0)
        {
            Fail(context, new(404), "EntryNotFound");
            return;
        }
        int from = int.Parse(context.Request.QueryString["cursor"] ?? "0", CultureInfo.InvariantCulture);
        // As a mirror that hands on the addresses of the Hub itself.
        if (from + PageSize < entries.Length) context.Response.AddHeader("Link", $"<https://huggingface.co{context.Request.RawUrl!.Split("&cursor")[0]}&cursor={from + PageSize}>; rel=\"next\"");
        Json(context, entries.Skip(from).Take(PageSize).Prepend(new { type = "directory", path = "x", oid = "0" }));
    }

    private void Redirect(HttpListenerContext context, IReadOnlyDictionary<string, byte[]> files, string path, string commit)
    {
        if (!files.TryGetValue(path, out byte[]? data))
        {
            Fail(context, new(404), "EntryNotFound");
            return;
        }
        context.Response.AddHeader("X-Repo-Commit", commit);
        if (!IsLarge(path))
        {
            Send(context, data);
            return;
        }
        context.Response.AddHeader("X-Linked-ETag", $"\"{Sha256(data)}\"");
        context.Response.AddHeader("X-Linked-Size", $"{data.Length}");
        context.Response.StatusCode = 302;
        context.Response.RedirectLocation = $"{FilesEndpoint}blob/{Sha256(data)}?signature=x";
        context.Response.Close();
    }

    private void AnswerFile(HttpListenerContext context)
    {
        // A store of files refuses a token that is not its own.
        if (context.Request.Headers["Authorization"] is not null)
        {
            Fail(context, new(400));
            return;
        }
        string hash = context.Request.RawUrl!.Split('/', '?')[2];
        if (Forbidden is { } forbidden && Sha256(forbidden) == hash)
        {
            Fail(context, new(403));
            return;
        }
        Send(context, _datasets.Values.SelectMany(d => d.Commits.Values).SelectMany(c => c.Files.Values).First(f => Sha256(f) == hash));
    }

    private void Send(HttpListenerContext context, byte[] data)
    {
        FileFaults.TryDequeue(out HubFault? fault);
        if (fault is { Status: not 0 })
        {
            Fail(context, fault);
            return;
        }
        int from = 0;
        if (context.Request.Headers["Range"] is { } range && fault?.IgnoreRange != true)
        {
            from = int.Parse(range["bytes=".Length..].Split('-')[0], CultureInfo.InvariantCulture);
            if (from >= data.Length)
            {
                Fail(context, new(416));
                return;
            }
            context.Response.StatusCode = 206;
            int named = fault?.WrongRange == true ? 0 : from;
            context.Response.AddHeader("Content-Range", $"bytes {named}-{data.Length - 1}/{data.Length}");
        }
        byte[] body = data[from..];
        if (fault?.Corrupt == true) body[body.Length / 2] ^= 1;
        context.Response.ContentLength64 = body.Length;
        int send = fault?.Stall == true ? body.Length / 2 : fault?.TruncateAfter ?? body.Length;
        int whole = Math.Min(send, body.Length), step = fault?.Pace ?? Math.Max(1, whole);
        for (int at = 0; at < whole; at += step)
        {
            context.Response.OutputStream.Write(body, at, Math.Min(step, whole - at));
            if (fault?.Pace is null) continue;
            context.Response.OutputStream.Flush();
            if (_stop.Token.WaitHandle.WaitOne(30)) return;
        }
        context.Response.OutputStream.Flush();
        if (fault?.Stall == true) _stop.Token.WaitHandle.WaitOne();
        if (send < body.Length) context.Response.Abort();
        else context.Response.Close();
    }

    private static void Json(HttpListenerContext context, object value)
    {
        context.Response.ContentType = "application/json";
        context.Response.Close(JsonSerializer.SerializeToUtf8Bytes(value), willBlock: true);
    }

    private static void Fail(HttpListenerContext context, HubFault fault, string? code = null)
    {
        context.Response.StatusCode = fault.Status;
        if (code is not null) context.Response.AddHeader("X-Error-Code", code);
        if (fault.RetryAfter is { } seconds) context.Response.AddHeader("Retry-After", $"{seconds}");
        context.Response.Close("<html>no</html>"u8.ToArray(), willBlock: true);
    }

    private static bool IsLarge(string path) => path.EndsWith(".parquet", StringComparison.Ordinal) || path.EndsWith(".gz", StringComparison.Ordinal);

    private sealed class Published
    {
        public Dictionary<string, string> Revisions { get; } = [];
        public Dictionary<string, (IReadOnlyDictionary<string, byte[]> Files, object Card)> Commits { get; } = [];
    }
}

using System.Collections.Concurrent;
using System.Net;
using System.Net.Sockets;
using System.Text.Json;

namespace NopeGpt.Jobs.Tests.Queue;

/// <summary>A real receiver of webhooks on this machine, which answers as it is told.</summary>
internal sealed class Receiver : IDisposable
{
    private readonly HttpListener listener;
    private readonly Func<int, HttpListenerContext, Task> answer;
    private int count;

    /// <param name="answer">Gets the number of the request, from 1, and the request. What it leaves open stays without an answer.</param>
    public Receiver(Func<int, HttpListenerContext, Task> answer)
    {
        this.answer = answer;
        while (true)
        {
            using (TcpListener free = new(IPAddress.Loopback, 0))
            {
                free.Start();
                Port = ((IPEndPoint)free.LocalEndpoint).Port;
            }
            listener = new HttpListener { Prefixes = { $"http://127.0.0.1:{Port}/" } };
            try
            {
                listener.Start();
                break;
            }
            catch (HttpListenerException) { /* another program was quicker: try another port */ }
        }
        _ = TakeAsync();
    }

    public int Port { get; }

    /// <summary>An address with something in it that nobody should see.</summary>
    public string Address => $"http://127.0.0.1:{Port}/hooks/s3cr3t?token=s3cr3t";

    public ConcurrentQueue<Received> Taken { get; } = [];

    /// <summary>Answers with these codes in turn, and with the last for ever after.</summary>
    public static Receiver Answering(params int[] codes) => new((number, context) =>
    {
        context.Response.StatusCode = codes[Math.Min(number, codes.Length) - 1];
        context.Response.Close();
        return Task.CompletedTask;
    });

    public async Task<Received> UntilAsync(int number)
    {
        await WaitFor.TrueAsync(() => Taken.Count >= number, $"{number} requests; there were {Taken.Count}");
        return Taken.ElementAt(number - 1);
    }

    public void Dispose() => listener.Close();

    private async Task TakeAsync()
    {
        try
        {
            while (true)
            {
                HttpListenerContext context = await listener.GetContextAsync();
                using MemoryStream body = new();
                await context.Request.InputStream.CopyToAsync(body);
                Taken.Enqueue(new(context.Request.HttpMethod, context.Request.RawUrl!, body.ToArray(), context.Request.Headers.AllKeys.ToDictionary(k => k!, k => context.Request.Headers[k]!, StringComparer.OrdinalIgnoreCase)));
                await answer(++count, context);
            }
        }
        catch (Exception e) when (e is HttpListenerException or ObjectDisposedException or InvalidOperationException) { /* the test ends */ }
    }
}

internal sealed record Received(string Method, string Path, byte[] Body, IReadOnlyDictionary<string, string> Headers)
{
    public JsonElement Json => JsonDocument.Parse(Body).RootElement;
    public string Event => Json.GetProperty("event").GetString()!;
    public string Id => Headers["X-NopeGpt-Notice"];
}

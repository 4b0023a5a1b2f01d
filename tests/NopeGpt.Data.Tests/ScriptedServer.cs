using System.Net;
using System.Net.Sockets;
using System.Text;

namespace NopeGpt.Data.Tests;

/// <summary>An HTTP server on this machine that answers each request with the bytes it is told and closes the connection.</summary>
internal sealed class ScriptedServer : IDisposable
{
    private readonly TcpListener _listener = new(IPAddress.Loopback, 0);
    private readonly Func<int, byte[]?> _answer;
    private readonly List<TcpClient> _open = [];
    private readonly List<string> _requests = [];

    /// <param name="answer">By the number of the request, from 0; empty closes the connection, null leaves it open without a word.</param>
    public ScriptedServer(Func<int, byte[]?> answer)
    {
        _answer = answer;
        _listener.Start();
        Address = new($"http://127.0.0.1:{((IPEndPoint)_listener.LocalEndpoint).Port}/encodings/");
        _ = AcceptAsync();
    }

    public Uri Address { get; }

    /// <summary>Method and path of each.</summary>
    public IReadOnlyList<string> Requests
    {
        get
        {
            lock (_requests) return [.. _requests];
        }
    }

    public static byte[] Ok(byte[] body) => [.. Encoding.ASCII.GetBytes($"HTTP/1.1 200 OK\r\nContent-Length: {body.Length}\r\nConnection: close\r\n\r\n"), .. body];

    public static byte[] Status(string status, string headers = "") => Encoding.ASCII.GetBytes($"HTTP/1.1 {status}\r\n{headers}Content-Length: 0\r\nConnection: close\r\n\r\n");

    public void Dispose()
    {
        _listener.Stop();
        lock (_requests)
            foreach (TcpClient client in _open) client.Dispose();
    }

    private async Task AcceptAsync()
    {
        try
        {
            while (true) _ = AnswerAsync(await _listener.AcceptTcpClientAsync());
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException) { /* the test is over */ }
    }

    private async Task AnswerAsync(TcpClient client)
    {
        try
        {
            using StreamReader reader = new(client.GetStream(), Encoding.ASCII, leaveOpen: true);
            string first = await reader.ReadLineAsync() ?? "";
            while (await reader.ReadLineAsync() is { Length: > 0 }) { }
            byte[]? answer;
            lock (_requests)
            {
                _open.Add(client);
                _requests.Add(first[..first.LastIndexOf(' ')]);
                answer = _answer(_requests.Count - 1);
            }
            if (answer is null) return;
            await client.GetStream().WriteAsync(answer);
            client.Dispose();
        }
        catch (Exception e) when (e is IOException or ObjectDisposedException) { client.Dispose(); }
    }
}

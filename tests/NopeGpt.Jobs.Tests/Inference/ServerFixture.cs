using System.Net.Http.Json;
using System.Net.Sockets;
using System.Text.Json;
using NopeGpt.Jobs.Inference;
using NopeGpt.Jobs.Inference.Http;

namespace NopeGpt.Jobs.Tests.Inference;

/// <summary>A server over a tiny store on a Unix socket of its own.</summary>
public sealed class ServerFixture : IAsyncLifetime
{
    private InferenceServer? _server;

    internal TinyStore Tiny { get; } = new();

    internal string Socket => Tiny["serve.sock"];

    internal HttpClient Http { get; private set; } = new();

    public async Task InitializeAsync()
    {
        _server = await InferenceServer.StartAsync(Tiny.Store, InferenceDevice.Cpu, Options(Socket));
        Http = Client(Socket);
    }

    internal static ServeOptions Options(string socket) => new(socket, null, TimeSpan.Zero, new ModelLimits(4, long.MaxValue));

    internal static HttpClient Client(string socket) => new(new SocketsHttpHandler
    {
        ConnectCallback = async (_, cancel) =>
        {
            Socket connection = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            await connection.ConnectAsync(new UnixDomainSocketEndPoint(socket), cancel);
            return new NetworkStream(connection, ownsSocket: true);
        },
    })
    {
        BaseAddress = new Uri("http://localhost"),
    };

    /// <summary>Posts a body and gives the status and the JSON of the answer.</summary>
    internal async Task<(int Status, JsonElement Json)> PostAsync(string path, object body)
    {
        using HttpResponseMessage response = await Http.PostAsJsonAsync(path, body);
        return ((int)response.StatusCode, await response.Content.ReadFromJsonAsync<JsonElement>());
    }

    /// <summary>Posts a body and gives the data of the answer's events.</summary>
    internal async Task<List<string>> StreamAsync(string path, object body)
    {
        using HttpResponseMessage response = await Http.PostAsJsonAsync(path, body);
        Assert.Equal("text/event-stream", response.Content.Headers.ContentType?.MediaType);
        string text = await response.Content.ReadAsStringAsync();
        return [.. text.Split("\n\n", StringSplitOptions.RemoveEmptyEntries).Where(e => !e.StartsWith(':')).Select(e => e["data: ".Length..])];
    }

    internal async Task<JsonElement> HealthAsync() => await Http.GetFromJsonAsync<JsonElement>("/health");

    public async Task DisposeAsync()
    {
        Http.Dispose();
        if (_server is not null) await _server.DisposeAsync();
        Tiny.Dispose();
    }
}

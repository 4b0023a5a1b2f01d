using System.CommandLine;
using System.Text;
using NopeGpt.Jobs.Inference;
using NopeGpt.Jobs.Inference.Http;

namespace NopeGpt.Jobs.Commands;

/// <summary>`nopegpt serve`: the models of a store behind an OpenAI-compatible interface.</summary>
internal sealed class ServeVerb() : Verb("serve", "Answer chat and completion requests with the store's models over HTTP, compatible with OpenAI's interface.")
{
    private const double SocketIdleMinutes = 15;

    private readonly Option<string?> _root = CommonOptions.Root(), _device = CommonOptions.Device(), _threads = CommonOptions.ReplyThreads(), _tiktoken = CommonOptions.Tiktoken();
    private readonly Option<string?> _socket = CommonOptions.Text("--socket", "PATH", "Unix socket to listen on, for its owner only. Default: serve.sock in the storage root.");
    private readonly Option<string?> _urls = CommonOptions.Text("--urls", "URL", "Listen on a loopback address such as http://127.0.0.1:5081 instead of a socket; several are separated by ;.");
    private readonly Option<string?> _idle = CommonOptions.Text("--idle_minutes", "X", "End after this many minutes without a request; 0 never. Default: 15 on a socket, 0 with --urls.");
    private readonly Option<string?> _models = CommonOptions.Text("--max_models", "N", "Models in memory at once.", "3");
    private readonly Option<string?> _memory = CommonOptions.Text("--model_memory", "MB", "Megabytes that the parameters of all models in memory may take. Default: half of the machine's memory.");

    public override IReadOnlyList<Option> Options => [_root, _socket, _urls, _idle, _models, _memory, _tiktoken, _device, _threads];

    public override Func<CancellationToken, Task<int>> Read(Arguments arguments)
    {
        IReadOnlyList<Uri>? urls = null;
        if (arguments.Text(_urls) is { } text && (urls = ServeOptions.ParseUrls(text, out string problem)) is null) arguments.Add(_urls.Name, text, problem);
        string? socket = arguments.Text(_socket);
        if (socket is not null && urls is not null) arguments.Add(_socket.Name, socket, "give --socket or --urls, not both");
        double minutes = arguments.Number(_idle, 0, 60 * 24 * 30) ?? (urls is null ? SocketIdleMinutes : 0);
        long bytes = arguments.Whole(_memory, 1, int.MaxValue) is { } megabytes ? megabytes * 1_000_000L : ModelLimits.Default.Bytes;
        ModelLimits limits = new(arguments.Whole(_models, 1, 1000) ?? ModelLimits.Default.Models, bytes);
        (string device, int threads) = (arguments.Device(_device), arguments.Whole(_threads, 0, 1024) ?? 0);
        IReadOnlyList<string> places = arguments.TokenizerPlaces(_tiktoken, _root);
        return async cancel =>
        {
            Store store = arguments.Store(_root);
            ServeOptions options = new(urls is null ? SocketPath(socket ?? store.ServeSocketPath) : null, urls, TimeSpan.FromMinutes(minutes), limits) { TokenizerPlaces = places };
            return await RunAsync(store, options, arguments.TorchLibrary, device, threads, cancel);
        };
    }

    private static async Task<int> RunAsync(Store store, ServeOptions options, string? torchLibrary, string deviceName, int threads, CancellationToken cancel)
    {
        ComputeDevice device = ComputeDevice.Start(torchLibrary, deviceName, threads);
        await using InferenceServer server = await InferenceServer.StartAsync(store, device, options);
        await Console.Error.WriteLineAsync($"serving the models of {store.Root} on {server.Address}");
        await server.RunAsync(cancel);
        return ExitCode.Done;
    }

    private static string SocketPath(string path)
    {
        string full = Path.GetFullPath(path);
        return Encoding.UTF8.GetByteCount(full) <= ServeOptions.LongestSocketPath ? full
            : throw new UserException($"{full} is longer than the {ServeOptions.LongestSocketPath} bytes that a socket's path can have: name a shorter one with --socket");
    }
}

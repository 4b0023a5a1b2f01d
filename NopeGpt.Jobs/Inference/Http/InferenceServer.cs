using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using BadHttpRequestException = Microsoft.AspNetCore.Http.BadHttpRequestException;

namespace NopeGpt.Jobs.Inference.Http;

/// <summary>The OpenAI-compatible interface over the models of one store.</summary>
internal sealed class InferenceServer : IAsyncDisposable
{
    private static readonly TimeSpan ShutdownTime = TimeSpan.FromSeconds(3);

    private readonly WebApplication _app;
    private readonly ServeOptions _options;
    private readonly ServeSocket? _socket;
    private readonly ModelCatalog _catalog;
    private readonly ModelStore _models;
    private readonly InferenceLane _lane = new();
    private readonly IdleWatch _idle = new(TimeProvider.System);
    private readonly ILogger _logger;

    private InferenceServer(Store store, ComputeDevice device, ServeOptions options, ServeSocket? socket)
    {
        (_options, _socket) = (options, socket);
        // Empty: the dashboard's appsettings.json lies beside this program and its addresses are not ours.
        WebApplicationBuilder builder = WebApplication.CreateEmptyBuilder(new WebApplicationOptions { ContentRootPath = AppContext.BaseDirectory });
        builder.Logging.AddSimpleConsole(o => (o.SingleLine, o.TimestampFormat, o.UseUtcTimestamp) = (true, "yyyy-MM-dd HH:mm:ss ", true)).SetMinimumLevel(LogLevel.Warning);
        builder.Logging.AddFilter("nopegpt", LogLevel.Information);
        builder.Services.Configure<Microsoft.Extensions.Logging.Console.ConsoleLoggerOptions>(o => o.LogToStandardErrorThreshold = LogLevel.Trace);
        builder.Services.AddRoutingCore();
        builder.Services.Configure<HostOptions>(o => o.ShutdownTimeout = ShutdownTime);
        builder.WebHost.UseKestrelCore().UseSockets(o => o.CreateBoundListenSocket = ServeSocket.Bind).ConfigureKestrel(Listen);
        _app = builder.Build();
        _logger = _app.Services.GetRequiredService<ILoggerFactory>().CreateLogger("nopegpt");
        _catalog = new ModelCatalog(store) { TokenizerPlaces = [.. options.TokenizerPlaces, .. store.TokenizerPlaces] };
        _models = new ModelStore(_catalog, device, options.Limits, Warn);
        Map();
    }

    /// <summary>Listens. The server has its models loaded by the first request for each.</summary>
    /// <exception cref="UserException">The address is in use.</exception>
    public static async Task<InferenceServer> StartAsync(Store store, ComputeDevice device, ServeOptions options)
    {
        InferenceServer server = new(store, device, options, options.Socket is null ? null : ServeSocket.Take(options.Socket));
        try
        {
            await server._app.StartAsync();
            return server;
        }
        catch (Exception e)
        {
            await server.DisposeAsync();
            if (e is IOException { InnerException: AddressInUseException }) throw new UserException($"{e.Message.TrimEnd('.')}: choose another port with --urls");
            throw;
        }
    }

    /// <summary>Where it listens: unix:/path or http://127.0.0.1:5081.</summary>
    public string Address => _options.Socket is { } path ? $"unix:{path}" : string.Join(" ", _app.Urls);

    /// <summary>Returns when it was idle for as long as the options say, or is told to stop; replies on the way get a moment to end.</summary>
    public async Task RunAsync(CancellationToken stop)
    {
        try { await (_options.Idle == TimeSpan.Zero ? Task.Delay(Timeout.InfiniteTimeSpan, stop) : _idle.WaitAsync(_options.Idle, stop)); }
        catch (OperationCanceledException) when (stop.IsCancellationRequested) { /* told to */ }
        await _app.StopAsync(CancellationToken.None);
    }

    public async ValueTask DisposeAsync()
    {
        await _app.DisposeAsync();
        _lane.Dispose();
        _models.Dispose();
        _socket?.Dispose();
    }

    private void Listen(KestrelServerOptions kestrel)
    {
        kestrel.AddServerHeader = false;
        // RequestBody has its own limit. Kestrel's cuts the connection, and the client would not get to read why.
        kestrel.Limits.MaxRequestBodySize = null;
        if (_options.Socket is { } path) kestrel.ListenUnixSocket(path);
        foreach (Uri url in _options.Urls ?? [])
        {
            if (url.IdnHost.Equals("localhost", StringComparison.OrdinalIgnoreCase)) kestrel.ListenLocalhost(url.Port);
            else kestrel.Listen(System.Net.IPAddress.Parse(url.IdnHost.Trim('[', ']')), url.Port);
        }
    }

    private void Map()
    {
        CompletionEndpoint completions = new(_models, _lane, _logger);
        _app.Use(GuardAsync);
        _app.UseRouting();
        _app.MapGet("/health", (RequestDelegate)HealthAsync);
        _app.MapGet("/v1/models", (RequestDelegate)ModelsAsync);
        _app.MapPost("/v1/chat/completions", (RequestDelegate)completions.ChatAsync);
        _app.MapPost("/v1/completions", (RequestDelegate)completions.TextAsync);
        _app.MapFallback((RequestDelegate)(http => throw new ApiException(StatusCodes.Status404NotFound,
            $"there is no {http.Request.Method} {http.Request.Path}: there are GET /v1/models, POST /v1/chat/completions, POST /v1/completions and GET /health")));
        _app.UseEndpoints(_ => { });
    }

    /// <summary>Around every request: counts it, keeps foreign web pages out, and turns failures into errors of the format.</summary>
    private async Task GuardAsync(HttpContext http, RequestDelegate next)
    {
        // Asking for its health does not keep a server alive that nobody uses.
        bool counts = http.Request.Path != "/health";
        if (counts) _idle.Enter();
        try
        {
            if (_options.Socket is null) RefuseForeign(http.Request);
            await next(http);
        }
        catch (OperationCanceledException) when (http.RequestAborted.IsCancellationRequested)
        {
            // Nobody listens any more.
        }
        catch (Exception e) when (!http.Response.HasStarted)
        {
            if (e is not (ApiException or BadHttpRequestException)) _logger.LogError(e, "{Method} {Path} failed", http.Request.Method, http.Request.Path);
            await ReplyWriter.WriteErrorAsync(http.Response, e switch
            {
                ApiException known => known,
                BadHttpRequestException bad => new(bad.StatusCode, bad.Message),
                _ => new(StatusCodes.Status500InternalServerError, $"the request failed: {e.Message.Split('\n')[0]}", code: "internal_error"),
            });
        }
        finally
        {
            if (counts) _idle.Leave();
        }
    }

    /// <summary>A page of any web site can send requests to this machine: names that were made to point here (DNS rebinding), forms and
    /// scripts of other origins are refused.</summary>
    private static void RefuseForeign(HttpRequest request)
    {
        if (!ServeOptions.IsLoopback(request.Host.Host)) throw new ApiException(StatusCodes.Status400BadRequest, "the Host header must name this machine (127.0.0.1 or localhost)");
        string? origin = request.Headers.Origin;
        if (origin is not null && !(Uri.TryCreate(origin, UriKind.Absolute, out Uri? from) && ServeOptions.IsLoopback(from.IdnHost)))
            throw new ApiException(StatusCodes.Status403Forbidden, "requests of other web sites are refused");
        if (HttpMethods.IsPost(request.Method) && !request.HasJsonContentType())
            throw new ApiException(StatusCodes.Status415UnsupportedMediaType, "send the body with Content-Type: application/json");
    }

    private Task HealthAsync(HttpContext http) =>
        http.Response.WriteAsJsonAsync(new { status = "ok", process_id = Environment.ProcessId, active = _idle.Active, models = _models.Loaded }, ReplyWriter.Json);

    private Task ModelsAsync(HttpContext http)
    {
        IEnumerable<object> models = _catalog.List().GroupBy(e => e.RunId).SelectMany(run => run.Select(e => Describe(e.Name, e)).Prepend(Describe(run.Key, run.First())));
        return http.Response.WriteAsJsonAsync(new { @object = "list", data = models.ToArray() }, ReplyWriter.Json);
    }

    private static object Describe(string id, CatalogEntry entry) =>
        new { id, @object = "model", created = entry.Created.ToUnixTimeSeconds(), owned_by = "nopegpt", nopegpt = new { run = entry.RunId, entry.Step, entry.Folder } };

    private void Warn(string message) => _logger.LogWarning("{Message}", message);
}

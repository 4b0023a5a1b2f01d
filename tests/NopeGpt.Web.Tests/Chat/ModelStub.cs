using System.Text.Json;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Logging;

namespace NopeGpt.Web.Tests.Chat;

/// <summary>A small model process for tests, with the arguments and the stream of `nopegpt serve`: it repeats the question's words, 20 ms each.
/// The model "slow" never ends by itself, "broken" stops in the middle, "missing" is refused; "refuse-to-start" in the root's name fails the start,
/// "wait-to-start" holds it until the root has a file "go".</summary>
internal static class ModelStub
{
    public static async Task<int> Main(string[] args)
    {
        string root = args[Array.IndexOf(args, "--root") + 1], socket = args[Array.IndexOf(args, "--socket") + 1];
        if (root.Contains("refuse-to-start", StringComparison.Ordinal))
        {
            await Console.Error.WriteLineAsync("no room for the model");
            return 2;
        }
        await File.AppendAllTextAsync(Path.Combine(root, "starts.txt"), Environment.ProcessId + "\n");
        while (root.Contains("wait-to-start", StringComparison.Ordinal) && !File.Exists(Path.Combine(root, "go"))) await Task.Delay(10);
        File.Delete(socket);
        WebApplicationBuilder builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders();
        builder.WebHost.ConfigureKestrel(k => k.ListenUnixSocket(socket));
        await using WebApplication app = builder.Build();
        app.MapGet("/health", () => "ok");
        app.MapGet("/v1/models", () => Results.Json(new { @object = "list", data = new[] { new { id = "stub" } } }));
        app.MapPost("/v1/chat/completions", ReplyAsync);
        await app.RunAsync();
        return 0;
    }

    private static async Task ReplyAsync(HttpContext http)
    {
        using JsonDocument body = await JsonDocument.ParseAsync(http.Request.Body);
        string model = body.RootElement.GetProperty("model").GetString()!;
        if (model == "missing")
        {
            http.Response.StatusCode = StatusCodes.Status404NotFound;
            await http.Response.WriteAsJsonAsync(new { error = new { message = "there is no model 'missing'", type = "invalid_request_error" } });
            return;
        }
        string[] words = body.RootElement.GetProperty("messages").EnumerateArray().Last().GetProperty("content").GetString()!.Split(' ');
        http.Response.ContentType = "text/event-stream";
        await SendAsync(http, ": loading");
        int tokens = 0;
        for (; model == "slow" || tokens < words.Length; tokens++)
        {
            string word = words[tokens % words.Length] + " ";
            await SendAsync(http, "data: " + JsonSerializer.Serialize(new { choices = new[] { new { delta = new { content = word }, finish_reason = (string?)null } }, nopegpt = new { tokens = tokens + 1, tokens_per_second = 50.0 } }));
            await Task.Delay(20, http.RequestAborted);
        }
        if (model == "failing")
        {
            await SendAsync(http, "data: {\"error\":{\"message\":\"the reply failed: out of memory\"}}");
            return;
        }
        ulong seed = body.RootElement.TryGetProperty("seed", out JsonElement given) ? given.GetUInt64() : 77;
        if (model != "broken") await SendAsync(http, "data: " + JsonSerializer.Serialize(new { choices = new[] { new { delta = new { }, finish_reason = "stop" } }, usage = new { prompt_tokens = 3, completion_tokens = tokens, total_tokens = tokens + 3 }, nopegpt = new { seed, tokens_per_second = 48.5 } }) + "\n\ndata: [DONE]");
    }

    private static async Task SendAsync(HttpContext http, string text)
    {
        await http.Response.WriteAsync(text + "\n\n", http.RequestAborted);
        await http.Response.Body.FlushAsync(http.RequestAborted);
    }
}

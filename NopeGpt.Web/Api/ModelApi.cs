using System.Net.Http.Headers;
using System.Text.Json;
using Microsoft.AspNetCore.Http.Features;
using NopeGpt.Web.Chat;

namespace NopeGpt.Web.Api;

/// <summary>/v1: the OpenAI-compatible interface, forwarded to the process that holds the models; it is started for the first request.</summary>
internal static class ModelApi
{
    public static void Map(IEndpointRouteBuilder app) => app.Map("/v1/{**rest}", ForwardAsync).DisableAntiforgery();

    private static async Task ForwardAsync(HttpContext context, InferenceClient client, IHostApplicationLifetime lifetime)
    {
        using CancellationTokenSource end = CancellationTokenSource.CreateLinkedTokenSource(context.RequestAborted, lifetime.ApplicationStopping);
        CancellationToken gone = end.Token;
        try
        {
            using HttpResponseMessage answer = await client.SendAsync(() => Request(context.Request), gone);
            context.Response.StatusCode = (int)answer.StatusCode;
            if (answer.Content.Headers.ContentType is { } type) context.Response.ContentType = type.ToString();
            context.Response.Headers.CacheControl = "no-store";
            context.Features.Get<IHttpResponseBodyFeature>()?.DisableBuffering();
            await using Stream body = await answer.Content.ReadAsStreamAsync(gone);
            await body.CopyToAsync(context.Response.Body, gone);
        }
        catch (InferenceException e)
        {
            await Results.Json(Error(e.Message), statusCode: StatusCodes.Status503ServiceUnavailable).ExecuteAsync(context);
        }
        catch (Exception e) when (e is HttpRequestException or IOException)
        {
            // The reply has begun: a stream can still tell why it ends; else breaking the connection is the only way to say that it is not whole.
            string why = await client.DescribeEndAsync();
            if (context.Response.ContentType?.StartsWith("text/event-stream", StringComparison.Ordinal) == true)
                await context.Response.WriteAsync($"\n\ndata: {JsonSerializer.Serialize(Error(why))}\n\n", gone);
            else
                context.Abort();
        }
        catch (OperationCanceledException) when (gone.IsCancellationRequested)
        {
            // The caller has left, or the dashboard closes; the request to the model process ends too.
            context.Abort();
        }
    }

    /// <summary>An error in OpenAI's format.</summary>
    private static object Error(string message) => new { error = new { message, type = "server_error", param = (string?)null, code = "model_process" } };

    private static HttpRequestMessage Request(HttpRequest from)
    {
        HttpRequestMessage to = new(new HttpMethod(from.Method), from.Path.ToUriComponent() + from.QueryString.ToUriComponent());
        if (from.ContentLength is null or > 0 && from.Body is { } body && (from.ContentLength > 0 || from.Headers.TransferEncoding.Count > 0))
        {
            to.Content = new StreamContent(body);
            if (MediaTypeHeaderValue.TryParse(from.ContentType, out MediaTypeHeaderValue? type)) to.Content.Headers.ContentType = type;
            to.Content.Headers.ContentLength = from.ContentLength;
        }
        if (from.Headers.Accept.Count > 0) to.Headers.TryAddWithoutValidation("Accept", from.Headers.Accept.ToArray());
        return to;
    }
}

using Microsoft.AspNetCore.Http.Features;
using Microsoft.AspNetCore.WebUtilities;
using Microsoft.Net.Http.Headers;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Queue;
using NopeGpt.Web.Uploads;

namespace NopeGpt.Web.Api;

/// <summary>/api/uploads: files for data sets, sent as the body of a request (curl --data-binary) or as a form (curl -F), written to the disk as they come.</summary>
internal static class UploadsApi
{
    // What a form has around its file.
    private const int FormBytes = 64 << 10;

    public static void Map(IEndpointRouteBuilder app)
    {
        RouteGroupBuilder uploads = app.MapGroup("/api/uploads").AddEndpointFilter(ApiProblems.Filter).DisableAntiforgery();
        uploads.MapPost("", AddAsync);
        uploads.MapGet("", (UploadStore store) => Results.Json(store.List().Select(View)));
        uploads.MapGet("/{name}", (string name, UploadStore store) => store.Find(name) is { } file ? Results.Json(View(file)) : NoSuchFile(name));
        uploads.MapDelete("/{name}", DeleteAsync);
    }

    private static async Task<IResult> AddAsync(HttpContext context, UploadStore store, IHostApplicationLifetime lifetime)
    {
        HttpRequest request = context.Request;
        string replace = request.Query["replace"].ToString();
        if (replace.Length > 0 && !bool.TryParse(replace, out _)) return ApiProblems.Bad("replace", replace, "must be true or false");
        // The store counts for itself and names the limit; the server's own, 30 MB, is for requests of another kind.
        if (context.Features.Get<IHttpMaxRequestBodySizeFeature>() is { IsReadOnly: false } server) server.MaxRequestBodySize = null;
        using CancellationTokenSource end = CancellationTokenSource.CreateLinkedTokenSource(context.RequestAborted, lifetime.ApplicationStopping);
        try
        {
            bool isForm = MediaTypeHeaderValue.TryParse(request.ContentType, out MediaTypeHeaderValue? type) && type.MediaType.Equals("multipart/form-data", StringComparison.OrdinalIgnoreCase);
            bool replaces = replace.Length > 0 && bool.Parse(replace);
            (UploadedFile file, string hash) = isForm ? await OfFormAsync(request, type!, store, replaces, end.Token) : await OfBodyAsync(request, store, replaces, end.Token);
            return Results.Created($"/api/uploads/{Uri.EscapeDataString(file.Name)}", new { name = file.Name, path = file.Path, bytes = file.Bytes, sha256 = hash });
        }
        catch (UploadException e)
        {
            return ApiProblems.Status(e.Status, e.Message);
        }
        catch (OperationCanceledException) when (end.IsCancellationRequested)
        {
            // The sender has left, or the dashboard closes: there is nobody to answer.
            context.Abort();
            return Results.Empty;
        }
    }

    private static Task<(UploadedFile File, string Hash)> OfBodyAsync(HttpRequest request, UploadStore store, bool replace, CancellationToken cancel)
    {
        string name = request.Query["name"].ToString();
        if (name.Length == 0) throw new UploadException(StatusCodes.Status400BadRequest, "The file has no name: send it to /api/uploads?name=FILE, or as a form with one file (curl -F file=@FILE).");
        return store.SaveAsync(name, request.Body, request.ContentLength, replace, cancel: cancel);
    }

    /// <summary>The one file of a form; its fields without a file are passed over.</summary>
    private static async Task<(UploadedFile File, string Hash)> OfFormAsync(HttpRequest request, MediaTypeHeaderValue type, UploadStore store, bool replace, CancellationToken cancel)
    {
        string boundary = HeaderUtilities.RemoveQuotes(type.Boundary).ToString();
        if (boundary.Length is 0 or > 200) throw Broken("its Content-Type names no boundary");
        MultipartReader reader = new(boundary, request.Body);
        (FileMultipartSection Section, string Name)? file = await NextFileAsync(reader, cancel);
        if (file is not var (section, own)) throw new UploadException(StatusCodes.Status400BadRequest, "The form has no file: send one (curl -F file=@FILE), or the bytes as the body to /api/uploads?name=FILE.");
        string name = request.Query["name"].ToString() is { Length: > 0 } given ? given : own;
        long? announced = request.ContentLength - FormBytes is > 0 and var least ? least : null;
        return await store.SaveAsync(name, section.FileStream!, announced, replace, async () =>
        {
            if (await NextFileAsync(reader, cancel) is not null) throw new UploadException(StatusCodes.Status400BadRequest, "The form has several files: send them one by one.");
        }, cancel);
    }

    private static async Task<(FileMultipartSection Section, string Name)?> NextFileAsync(MultipartReader reader, CancellationToken cancel)
    {
        try
        {
            while (await reader.ReadNextSectionAsync(cancel) is { } section)
            {
                if (section.AsFileSection() is { } file) return (file, file.FileName);
            }
            return null;
        }
        catch (Exception e) when (e is IOException and not BadHttpRequestException or InvalidDataException)
        {
            throw Broken(e.Message.TrimEnd('.'));
        }
    }

    private static async Task<IResult> DeleteAsync(string name, UploadStore store, RunQueue queue, Store runs, CancellationToken cancel)
    {
        if (store.Find(name) is not { } file) return NoSuchFile(name);
        if (await DatasetUse.OfSourceAsync(file.Path, queue, runs, cancel) is { } run) return ApiProblems.Conflict($"Run {run.Title} reads {name}: stop it first.");
        store.Delete(name);
        return Results.NoContent();
    }

    private static object View(UploadedFile file) => new { name = file.Name, path = file.Path, bytes = file.Bytes, received = file.Received };

    private static IResult NoSuchFile(string name) => ApiProblems.Status(StatusCodes.Status404NotFound, $"There is no file '{(name.Length <= 80 ? name : name[..77] + "...")}'; GET /api/uploads lists them.");

    private static UploadException Broken(string reason) => new(StatusCodes.Status400BadRequest, $"The form cannot be read ({reason}): send it again, as multipart/form-data with one file.");
}

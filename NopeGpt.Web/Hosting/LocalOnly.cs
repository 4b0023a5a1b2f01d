using System.Net;

namespace NopeGpt.Web.Hosting;

/// <summary>Keeps other machines and other sites' pages out, as long as there is no login: the dashboard listens on this machine only,
/// answers to this machine's names only (a page whose name is made to resolve here would otherwise pass for ours), and refuses what another
/// site's page would change or listen to.</summary>
internal static class LocalOnly
{
    public static IApplicationBuilder UseLocalOnly(this IApplicationBuilder app) => app.Use(async (context, next) =>
    {
        if (!IsLocal(context.Request.Host.Host))
            await Refuse(context, StatusCodes.Status400BadRequest, $"The host name '{context.Request.Host.Host}' is not this machine's: use http://127.0.0.1 or http://localhost with the dashboard's port.");
        else if (IsForeign(context.Request) && ChangesOrListens(context.Request))
            await Refuse(context, StatusCodes.Status403Forbidden, $"A page of {context.Request.Headers.Origin} may not use this dashboard: use the dashboard's own pages, or a program that sends no Origin.");
        else
            await next(context);
    });

    /// <summary>True for a name or address that always means this machine.</summary>
    public static bool IsLocal(string host) =>
        host.Equals("localhost", StringComparison.OrdinalIgnoreCase) || (IPAddress.TryParse(host.Trim('[', ']'), out IPAddress? address) && IPAddress.IsLoopback(address));

    private static bool IsForeign(HttpRequest request)
    {
        string origin = request.Headers.Origin.ToString();
        return origin.Length > 0 && !string.Equals(origin, $"{request.Scheme}://{request.Host.Value}", StringComparison.OrdinalIgnoreCase);
    }

    private static bool ChangesOrListens(HttpRequest request) =>
        !(HttpMethods.IsGet(request.Method) || HttpMethods.IsHead(request.Method) || HttpMethods.IsOptions(request.Method))
        || request.HttpContext.WebSockets.IsWebSocketRequest || request.Headers.Upgrade.Count > 0
        || request.Path.StartsWithSegments("/hubs") || request.Path.StartsWithSegments("/_blazor");

    private static Task Refuse(HttpContext context, int status, string detail) => Results.Problem(detail, statusCode: status).ExecuteAsync(context);
}
